"""Answer probability: P(a|q)^(1/|a|) = exp(1/|a| Σ_t log p(a_t | q, a_<t)), mean over samples, %.

|a| counts the answer's tokens, its end among them; a document is one answer to nothing. Source:
Maini et al. 2024 (TOFU), arXiv 2401.06121, section 2.2.1, "probability".
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._said import Asked, Said, lacking

OBJECTIVE = "language"
OF = "probability per token of the true answers about what"
ABOUT = {
    "P_forget": About("answers", "reference", "%", f"{OF} was to be forgotten"),
    "P_retain": About("answers", "reference", "%", f"{OF} stays"),
    "P_test": About("answers", "reference", "%", f"{OF} no model was trained on"),
}
NEEDS = {f"P_{name}": ((name, "samples", 1),) for name in ("forget", "retain", "test")}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, NEEDS)


def measure(said: Said) -> dict[str, float]:
    """{"P_forget", "P_retain", "P_test"}, those that are not ``unmet``."""
    sets = [name.removeprefix("P_") for name in NEEDS.keys() - unmet(said.asked).keys()]
    return {f"P_{name}": percent(said.log_probability(name)) for name in sets}


def percent(log_probabilities: np.ndarray) -> float:
    """Mean of exp over samples: nats (n,) -> %."""
    return float(100 * np.exp(log_probabilities).mean())
