"""Questions, true answers, and what the models say, side by side."""

import math
from collections.abc import Mapping

import pandas as pd

from imu.datasets.common.texts import Texts
from tasks.pages.kinds import Part, part_of_one, short
from tasks.pages.shares import shares

DEFAULT = "imu_words"
TESTED = ", on the tokens of answers about subjects that it never saw"
CONFIDENCE = "confidence in the truth"
TOLD = ""
SAID = {
    "original_said": "the original",
    "reference_said": "the reference",
    "said": "this model",
}
RATIOS = {
    "the original": ("original", "original_log_ratio"),
    "the reference": ("reference", "reference_log_ratio"),
    "this model": ("model", "log_ratio"),
}
TICKS = [(power * math.log(10), f"{10**power:g}") for power in (-3, -2, -1, 0, 1)]
READ = (
    "Truth ratio: how probable wrong answers are beside the true one; near 0 the model knows it. "
    "Up: the share of the questions with at most this ratio. The largest gap between a curve and "
    "the reference's is KS; forget quality (FQ) is how likely chance alone makes one so large."
)


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


def whole(data: Texts, table: pd.DataFrame) -> list[Part]:
    """How the truth ratios on the forget set are spread; [] where there are no wrong answers."""
    asked = table[table["set"] == "forget"]
    known = {who: of for who, of in RATIOS.items() if of[1] in asked}
    curves = {who: (look, asked[column].dropna().tolist()) for who, (look, column) in known.items()}
    if not all(values for _, values in curves.values()):
        return []
    return [Part("Truth ratios on the forget set", figure=shares(curves, TICKS), note=READ)]


def shown(data: Texts, rows: list[int]) -> dict[str, list[str]]:
    """Some rows for a table: whom they are about, the question and the true answer."""
    return {
        "subject": data.attributes["subject"][rows].tolist(),
        "prompt": data.prompts[rows].tolist(),
        "answer": data.answers[rows].tolist(),
    }
