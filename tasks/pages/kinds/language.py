"""Questions, true answers, and what the models say, side by side."""

from collections.abc import Mapping

import pandas as pd

from imu.datasets.common.texts import Texts
from tasks.pages.kinds import Part, part_of_one, short

DEFAULT = "imu_words"
TESTED = ", on the tokens of answers about subjects that it never saw"
CONFIDENCE = "confidence in the truth"
TOLD = ""
SAID = {
    "original_said": "the original says",
    "reference_said": "the reference",
    "said": "this model",
}


def influential(data: Texts, parts: Mapping[str, pd.DataFrame]) -> list[Part]:
    header = ["question", "true answer", "influence", "loss"]
    return [
        Part(
            title,
            table=[
                header,
                *(
                    [
                        str(data.prompts[row.row]),
                        str(data.answers[row.row]),
                        short(row.influence),
                        short(row.loss),
                    ]
                    for row in part.itertuples()
                ),
            ],
        )
        for title, part in parts.items()
    ]


def slices(data: Texts, parts: Mapping[str, tuple[pd.DataFrame, str]]) -> list[Part]:
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
                    part_of_one(row[column]),
                ]
                for _, row in of.iterrows()
            ),
        ]

    return [Part(title, table=table(part, column)) for title, (part, column) in parts.items()]
