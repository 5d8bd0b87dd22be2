"""ROUGE-L recall: the share of the true answer's words that the greedy answer has in their order.

    recall = |longest common subsequence of words| / |words of the true answer|

mean over samples, in %. Words are runs of letters, digits and _ in lower case; an answer without
any has its characters instead. Sources: Lin 2004, "ROUGE: a package for automatic evaluation of
summaries", section 3; for forgetting Maini et al. 2024 (TOFU), arXiv 2401.06121, section 2.2.1,
whose program also cuts English words to their stems.
"""

import re
from collections.abc import Mapping

from imu.metrics import About
from imu.metrics._said import IN_FULL, Asked, Said, lacking

OBJECTIVE = "language"
OF = "share of the words of the true answer that the model's own has in this order, mean over what"
ABOUT = {
    "ROUGE_forget": About("answers", "reference", "%", f"{OF} was to be forgotten"),
    "ROUGE_retain": About("answers", "reference", "%", f"{OF} stays"),
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {f"ROUGE_{name}": ((name, "samples", 1),) for name in IN_FULL})


def measure(said: Said) -> dict[str, float]:
    """{"ROUGE_forget": %, "ROUGE_retain": %}, those that are not ``unmet``."""
    missing = unmet(said.asked)
    return {f"ROUGE_{n}": mean_recall(said, n) for n in IN_FULL if f"ROUGE_{n}" not in missing}


def mean_recall(said: Said, name: str) -> float:
    pairs = zip(said.wanted[name], said.generated[name], strict=True)
    recalls = [recall(true, own) for true, own in pairs]
    return 100 * sum(recalls) / len(recalls)


def recall(true: str, own: str) -> float:
    """ROUGE-L recall of the answer ``own``, in [0, 1]; 0 where the true one is blank."""
    wanted = words(true)
    split = words if wanted else list
    wanted, said = wanted or list(true.strip()), split(own)
    longest = [0] * (len(said) + 1)  # of the common subsequences with each beginning of ``said``
    for word in wanted:
        before = longest.copy()
        for j, other in enumerate(said, 1):
            longest[j] = before[j - 1] + 1 if word == other else max(before[j], longest[j - 1])
    return longest[-1] / len(wanted) if wanted else 0.0


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
