"""Questions, true answers, and what the models say, side by side."""

from collections.abc import Mapping
from textwrap import shorten

import pandas as pd

from imu.datasets.common.texts import Texts
from tasks.pages import figures
from tasks.pages.kinds import Rows, short

WIDTH = 120  # characters of a line in a figure
SAID = {
    "original_said": "the original says",
    "reference_said": "the reference",
    "said": "this model",
}


def influential(data: Texts, parts: Mapping[str, pd.DataFrame]) -> bytes:
    return figures.lines(
        {
            title: [
                f"influence {short(row.influence)}, loss {row.loss:.2g}: "
                + shorten(
                    f"{data.prompts[row.row]} {data.answers[row.row]}", WIDTH, placeholder=" …"
                )
                for row in part.itertuples()
            ]
            for title, part in parts.items()
        }
    )


def slices(data: Texts, least: pd.DataFrame, worse: pd.DataFrame) -> Rows:
    def table(of: pd.DataFrame, column: str) -> list[list[str]]:
        columns = [name for name in SAID if name in of]
        header = ["question", "true answer", *(SAID[name] for name in columns), column]
        return [
            header,
            *(
                [
                    str(row["asked"]),
                    str(row["wanted"]),
                    *(str(row[name]) for name in columns),
                    short(row[column]),
                ]
                for _, row in of.iterrows()
            ),
        ]

    return Rows(
        {
            "Forget samples remembered most": table(least, "remembered"),
            "Retain samples that lost most": table(worse, "lost"),
        }
    )
