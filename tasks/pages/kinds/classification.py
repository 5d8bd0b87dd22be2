"""Images, and below each what the models say it is."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from imu.datasets import LabelledImages
from tasks.pages.kinds import Card, Part, part_of_one, short

DEFAULT = "imu_deep"
TESTED = " over all classes"
CONFIDENCE = "confidence in the truth"
TOLD = " Beside an answer: how probable the model holds the truth."
LARGEST = 64  # pixels per side
SAYS = {"original_": "original", "reference_": "retrained", "": "this model"}


def influential(data: LabelledImages, parts: Mapping[str, pd.DataFrame]) -> list[Part]:
    def lines(row: Any) -> list[tuple[str, str]]:
        return [("influence", short(row.influence)), ("loss", short(row.loss))]

    return [
        Part(
            title,
            [
                Card(_png(data, row.row), [("truth", data.classes[row.label]), *lines(row)])
                for row in part.itertuples()
            ],
        )
        for title, part in parts.items()
    ]


def slices(data: LabelledImages, parts: Mapping[str, tuple[pd.DataFrame, str]]) -> list[Part]:
    """Each answer with the probability of the true class."""

    def card(row: Any, column: str) -> Card:
        says = [
            (
                who,
                f"{data.classes[row[f'{prefix}predicted']]} · {row[f'{prefix}confidence']:.0%}",
            )
            for prefix, who in SAYS.items()
            if f"{prefix}predicted" in row
        ]
        truth = ("truth", data.classes[row["label"]])
        return Card(_png(data, row["row"]), [truth, *says, (column, part_of_one(row[column]))])

    return [
        Part(title, [card(row, column) for row in part.to_dict("records")])
        for title, (part, column) in parts.items()
    ]


def shown(data: LabelledImages, rows: list[int]) -> dict[str, list[Any]]:
    """The images of some rows for a table: uint8 (h, w) or (h, w, channels) each, up to 255."""
    images = data.images[rows].transpose(0, 2, 3, 1)  # (n, h, w, channels)
    pixels = np.round(images * (255 / data.scale)).astype(np.uint8)
    return {"image": [p[:, :, 0] if p.shape[2] == 1 else p for p in pixels]}


def _png(data: LabelledImages, row: int) -> str:
    from PIL import Image

    (pixels,) = shown(data, [row])["image"]
    image, png = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    image.thumbnail((LARGEST, LARGEST))
    image.save(png, format="PNG")
    return base64.b64encode(png.getvalue()).decode()
