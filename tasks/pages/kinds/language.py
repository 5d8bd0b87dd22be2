"""Questions, true answers, and what the models say, side by side."""

from collections.abc import Mapping

import pandas as pd

from imu.datasets.common.texts import Texts
from tasks.pages import figures
from tasks.pages.kinds import Rows, short

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
                f"{data.prompts[row.row]} {data.answers[row.row]}"
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
                    str(data.prompts[row["row"]]),
                    str(data.answers[row["row"]]),
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
