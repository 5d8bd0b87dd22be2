"""Forget efficacy: the % of the forget set that a membership attack calls non-member.

An RBF SVC (C = 3, gamma "auto", which is 1 / width of the feature) learns to tell retained
training samples (members) from validation samples (non-members) by one feature of the softmax
p of each, as many of each. All five attacks learn from the same draws. The aim is the retrained
model's value, not 100.

    MIA           p_y, the confidence in the true label y
    MIA_correct   1 where the most probable class is y, else 0
    MIA_entropy   −Σ_k p_k log p_k, nats
    MIA_modified  −(1 − p_y) log p_y − Σ_{k≠y} p_k log(1 − p_k), nats
    MIA_vector    p, (classes,)

Sources: Fan et al. 2024 (SalUn), arXiv 2310.12508, appendix C, for the attack; Song & Mittal 2021,
arXiv 2003.10595, for modified entropy. SalUn's own program (evaluation/SVC_MIA.py in
github.com/OPTML-Group/Unlearn-Saliency) computes another quantity under that name: it takes log p
for log(1 − p), and for column y the columns of all labels of a batch.

Test samples take no part, so the attack never sees what test accuracy is reported on. Where
classes are forgotten whole, validation samples of these classes are left out.

Validation samples serve twice in sample-wise forgetting: here, and as the accuracy at which
methods stop. Caution: the attack learns from features of confident answers. Where a model gives
the forget set confidences near 0, as after class-wise forgetting, it extrapolates and may answer 0
or 100 from seed to seed. MIA_correct is 100 − FA where members are classified rightly more often
than non-members, FA where it is the other way round by chance, and 0 where they are equal. A
decision within 1e-9 of the boundary counts as member: an attack that found nothing to learn must
not answer by rounding.
"""

from collections.abc import Callable

import numpy as np

from imu.metrics import About, Outputs

UNDECIDED = 1e-9  # of the SVC's decision, whose margin is 1
SHARE = "share of the forget set that a membership attack on"
FLIPS = "; after class-wise forgetting it can flip between 0 and 100 by chance"
ABOUT = {
    name: About("membership", "reference", "%", f"{SHARE} {feature} calls unseen{caution}")
    for name, feature, caution in (
        ("MIA", "confidence", f"{FLIPS}, and the gap with it"),
        (
            "MIA_correct",
            "correctness",
            "; 100 − FA where members are right more often than non-members, FA where less often, "
            "and 0 where equally often",
        ),
        ("MIA_entropy", "entropy", FLIPS),
        ("MIA_modified", "modified entropy", FLIPS),
        ("MIA_vector", "all probabilities", FLIPS),
    )
}
# The least argument of a logarithm: log p_y of a masked class would be −∞, which no SVC takes.
# Song & Mittal's program (github.com/inspire-group/membership-inference-evaluation) has the same
# value. It makes −log of a masked p_y 69 nats.
FLOOR = 1e-30


def measure(outputs: Outputs) -> dict[str, float]:
    """{"MIA", "MIA_correct", "MIA_entropy", "MIA_modified", "MIA_vector"}, in %.

    Raises ValueError when there are no members or no non-members, or a confidence is not finite.
    """
    others = np.flatnonzero(~outputs.of_forgotten_class("validation"))
    retained = len(outputs.labels["retain"])
    size = min(retained, len(others))
    if size == 0:
        raise ValueError(
            f"the membership attack needs members and non-members, got {retained} retained "
            f"and {len(others)} validation samples"
        )
    draw = np.random.default_rng(outputs.seed)
    members = draw.choice(retained, size, replace=False)
    others = draw.choice(others, size, replace=False)
    return {
        name: _called_unseen(
            feature(outputs, "retain")[members],
            feature(outputs, "validation")[others],
            feature(outputs, "forget"),
        )
        for name, feature in FEATURES.items()
    }


def modified_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−(1 − p_y) log p_y − Σ_{k≠y} p_k log(1 − p_k) of each sample, in nats: (n,).

    probabilities: float64 (n, classes). labels: int64 (n,). 0 when sure and right, falling in p_y.
    Arguments of logarithms are at least 1e-30, and 0 log 0 = 0. Source: Song & Mittal 2021,
    arXiv 2003.10595.
    """
    own = np.eye(probabilities.shape[1], dtype=bool)[labels]  # (n, classes)
    surprise = -np.log(np.maximum(np.where(own, probabilities, 1 - probabilities), FLOOR))
    values: np.ndarray = (np.where(own, 1 - probabilities, probabilities) * surprise).sum(1)
    return values


def _confidence(outputs: Outputs, name: str) -> np.ndarray:
    return outputs.confidence(name)[:, None]


def _correct(outputs: Outputs, name: str) -> np.ndarray:
    right = outputs.probabilities[name].argmax(1) == outputs.labels[name]
    return right.astype(float)[:, None]


def _entropy(outputs: Outputs, name: str) -> np.ndarray:
    from scipy.special import entr

    values: np.ndarray = entr(outputs.probabilities[name]).sum(1, keepdims=True)
    return values


def _modified(outputs: Outputs, name: str) -> np.ndarray:
    return modified_entropy(outputs.probabilities[name], outputs.labels[name])[:, None]


def _vector(outputs: Outputs, name: str) -> np.ndarray:
    return outputs.probabilities[name]


# What each attack sees of a set, (n, width). Confidence comes first: SVC refuses it when it is not
# finite, which correctness would hide.
FEATURES: dict[str, Callable[[Outputs, str], np.ndarray]] = {
    "MIA": _confidence,
    "MIA_correct": _correct,
    "MIA_entropy": _entropy,
    "MIA_modified": _modified,
    "MIA_vector": _vector,
}


def _called_unseen(members: np.ndarray, others: np.ndarray, asked: np.ndarray) -> float:
    """% of ``asked`` that an attack fitted to ``members`` and ``others`` calls non-member."""
    from sklearn.svm import SVC

    attack = SVC(C=3.0, gamma="auto", kernel="rbf")
    attack.fit(
        np.concatenate([members, others]),
        np.concatenate([np.ones(len(members)), np.zeros(len(others))]),
    )
    return float(100 * (attack.decision_function(asked) < -UNDECIDED).mean())
