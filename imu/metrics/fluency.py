"""Fluency of the model's own answers to what stays: does it still speak, or babble?

    fluency       ⅓ H_2 + ⅔ H_3, entropies in bits of the answer's own 2- and 3-grams of words
    repetition    share in % of the answer's 2-grams that it has had before

mean over the retain set's greedy answers; an answer of one word has 0 of both. An answer that
repeats itself has few n-grams and a low entropy; a longer one a higher. Sources: Zhang et al. 2018,
arXiv 1809.05972, for the entropy, with the weights of the program of Meng et al. 2022 (ROME), arXiv
2202.05262; Welleck et al. 2020, arXiv 1908.04319, for seq-rep-n, there with 4-grams, which short
answers do not have.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import Asked, Said, lacking
from imu.metrics.rouge import words

OBJECTIVE = "language"
WEIGHTS = {2: 1 / 3, 3: 2 / 3}  # n -> weight
ABOUT = {
    "fluency": About(
        "answers",
        "reference",
        "bits",
        "entropy of the 2-grams and 3-grams of words within the model's own answers, retain set",
    ),
    "repetition": About(
        "answers",
        "reference",
        "%",
        "share of the pairs of words in the model's own answers, retain set, that came before",
    ),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, dict.fromkeys(ABOUT, (("retain", "samples", 1),)))


def measure(said: Said) -> dict[str, float]:
    """{"fluency": bits, "repetition": %}; nothing where they are ``unmet``."""
    if unmet(said.asked):
        return {}
    answers = [words(answer) for answer in said.generated["retain"]]
    return {
        "fluency": float(
            np.mean([sum(w * entropy(a, n) for n, w in WEIGHTS.items()) for a in answers])
        ),
        "repetition": float(100 * np.mean([repeated(a) for a in answers])),
    }


def entropy(answer: list[str], n: int) -> float:
    """Of the answer's n-grams, in bits."""
    counts = np.fromiter(_grams(answer, n).values(), float)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def repeated(answer: list[str]) -> float:
    """Share of the answer's 2-grams that are not the first of their kind."""
    counts = _grams(answer, 2)
    return 1 - len(counts) / counts.total() if counts else 0.0


def _grams(answer: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(answer[i : i + n]) for i in range(len(answer) - n + 1))
