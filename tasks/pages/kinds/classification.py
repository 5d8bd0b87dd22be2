"""Images, with class, prediction and influence above each."""

import base64
from collections.abc import Mapping
from typing import Any

import pandas as pd

from imu.datasets import LabelledImages
from tasks.pages import figures
from tasks.pages.kinds import Picture, short


def influential(data: LabelledImages, parts: Mapping[str, pd.DataFrame]) -> bytes:
    rows = [
        figures.Images(
            title,
            [
                f"{data.classes[row.label]}\n{_influence_of(row)}\nloss {row.loss:.2g}"
                for row in part.itertuples()
            ],
            data.images[part["row"]],
        )
        for title, part in parts.items()
    ]
    return figures.samples(rows, data.scale)


def slices(data: LabelledImages, least: pd.DataFrame, worse: pd.DataFrame) -> Picture:
    def part(title: str, table: pd.DataFrame, column: str) -> figures.Images:
        captions = [
            f"{data.classes[row.label]} → {data.classes[row.predicted]}\n"
            f"{column} {short(getattr(row, column))}"
            + (f"\n{_influence_of(row)}" if "influence" in table else "")
            for row in table.itertuples()
        ]
        return figures.Images(title, captions, data.images[table["row"]])

    parts = [
        part("Forget images remembered most", least, "remembered"),
        part("Retain images that lost most", worse, "lost"),
    ]
    return Picture(base64.b64encode(figures.samples(parts, data.scale)).decode())


def _influence_of(row: Any) -> str:
    return f"influence {short(row.influence)}"
