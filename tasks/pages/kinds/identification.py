"""Images of people, and beside each what the models find for it: a tick at the same person."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from imu.datasets import LabelledImages
from tasks.pages.kinds import Card, Part, classification, part_of_one

DEFAULT = "imu_deep"
TESTED = " over the people that it was trained on"
CONFIDENCE = "average precision with the image as the query"
TOLD = (
    " On the left the query, an image that the original was trained on; on the right a row for each"
    " model, what it holds most like it among images that no model was trained on, of other people"
    " or other cameras. In a green frame: the same person."
)
HEIGHT = 64  # pixels, of the larger of query and finds
FINDS = {"original_": "before", "reference_": "retrained", "": "after"}
RIGHT, WRONG, GAP = (0, 158, 115), (150, 150, 150), 2  # colours of frames, and their width

influential = classification.influential
shown = classification.shown


def slices(data: LabelledImages, parts: Mapping[str, tuple[pd.DataFrame, str]]) -> list[Part]:
    """Each image as a query, and the gallery images most like it before and after."""

    def card(row: Any, column: str) -> Card:
        finds = {
            who: [int(place) for place in row[f"{prefix}nearest"].split()]
            for prefix, who in FINDS.items()
            if f"{prefix}nearest" in row
        }
        precision = [
            (f"{who}, average precision", f"{row[f'{prefix}confidence']:.2f}")
            for prefix, who in FINDS.items()
            if f"{prefix}nearest" in row
        ]
        person = ("person", data.classes[row["label"]])
        lines = [person, *precision, (column, part_of_one(row[column]))]
        return Card(_png(data, row["row"], list(finds.values())), lines, wide=True)

    return [
        Part(
            f"{title}: the query, and what is most like it in the gallery {_rows(part)}",
            [card(row, column) for row in part.to_dict("records")],
        )
        for title, (part, column) in parts.items()
    ]


def _rows(part: pd.DataFrame) -> str:
    """The rows of finds below each query, from above."""
    return ", ".join(who for prefix, who in FINDS.items() if f"{prefix}nearest" in part)


def _png(data: LabelledImages, query: int, finds: Sequence[Sequence[int]]) -> str:
    """The query on the left, a row of finds for each model on the right; framed, the same person
    in colour."""
    from PIL import Image

    person = data.labels[query]
    rows = [
        np.concatenate([_framed(data, row, data.labels[row] == person) for row in found], 1)
        for found in finds
    ]
    right = np.concatenate(rows, 0)  # (rows · h, k · w, 3)
    left = np.full((len(right), _framed(data, query, True).shape[1] + 2 * GAP, 3), 255, np.uint8)
    image = _framed(data, query, True)
    left[: len(image), : image.shape[1]] = image
    png = BytesIO()
    Image.fromarray(np.concatenate([left, right], 1)).save(png, format="PNG")
    return base64.b64encode(png.getvalue()).decode()


def _framed(data: LabelledImages, row: int, right: bool) -> np.ndarray:
    """An image in its frame: uint8 (h, w, 3)."""
    from PIL import Image

    (pixels,) = shown(data, [row])["image"]
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    image.thumbnail((HEIGHT, HEIGHT))
    small = np.asarray(image)
    height, width = small.shape[:2]
    framed = np.empty((height + 2 * GAP, width + 2 * GAP, 3), np.uint8)
    framed[:] = RIGHT if right else WRONG
    framed[GAP : GAP + height, GAP : GAP + width] = small
    return framed
