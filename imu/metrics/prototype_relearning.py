"""Prototype relearning: k forget samples bring a forgotten class back, without any training.

The head is replaced by one prototype per class. Of a retained class it is the mean feature of its
validation samples; of a forgotten class c, the mean feature of k forget samples. A sample goes to
the class whose prototype points most nearly in its direction,

    argmax_c ⟨u(h), u(m_c)⟩,    u(h) = v / ‖v‖,    v = (h − m_0) / std h,

m_0 the mean of the retained prototypes, std h over the validation samples, unit by unit. The value
is the accuracy in % on the forget samples that were not drawn, the mean of 100 draws. Sources:
weight imprinting, Qi et al. 2018, arXiv 1712.07136, section 3.2; prototypes, Snell et al. 2017,
arXiv 1703.05175.

Features behind a ReLU are not negative and all point the same way: without m_0 an imprinted row
wins on every sample. The retained rows are imprinted too, rather than kept, so that the head has
no say: one whose retained rows are loud would hide the class without changing a feature. Units in
another scale leave the value as it is. It is defined where a class is forgotten whole; test
samples take no part.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Outputs

COUNTS = (1, 5, 10)  # k, forget samples of each forgotten class
DRAWS = 100

OBJECTIVE = ("classification", "identification")
NEEDS_HEAD = True
ABOUT = {
    f"proto_{k}": About(
        "features",
        "reference",
        "%",
        f"accuracy on the rest of the forget set after the mean feature of {k} of its samples is "
        "put back as the prototype of the class",
    )
    for k in COUNTS
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured on samples of these labels."""
    if not forget_classes:
        return dict.fromkeys(ABOUT, "needs a class that is forgotten whole")
    if np.isin(labels["validation"], forget_classes).all():
        return dict.fromkeys(ABOUT, "needs validation samples of a retained class")
    fewest = min(int((labels["forget"] == c).sum()) for c in forget_classes)
    return {
        f"proto_{k}": f"needs {k + 1} forget samples of each forgotten class, got {fewest}"
        for k in COUNTS
        if k >= fewest
    }


def measure(outputs: Outputs) -> dict[str, float]:
    """{"proto_1", "proto_5", "proto_10"}, but for those that are ``unmet``."""
    missing = unmet(outputs.labels, outputs.forget_classes)
    if missing.keys() == ABOUT.keys():
        return {}
    labels = outputs.labels["forget"]
    rows = {c: np.flatnonzero(labels == c) for c in outputs.forget_classes}
    retained, features = _standardised(outputs)
    return {
        f"proto_{k}": _recovered(retained, features, rows, k, outputs.seed)
        for k in COUNTS
        if f"proto_{k}" not in missing
    }


def _standardised(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Prototypes of the retained classes and features of the forget set, with origin m_0."""
    from sklearn.preprocessing import StandardScaler

    labels = outputs.labels["validation"]
    kept = sorted(set(labels.tolist()) - set(outputs.forget_classes))
    scaler = StandardScaler().fit(outputs.features["validation"])
    known = scaler.transform(outputs.features["validation"])
    prototypes = np.stack([known[labels == c].mean(0) for c in kept])  # (retained, d)
    origin = prototypes.mean(0)
    return prototypes - origin, scaler.transform(outputs.features["forget"]) - origin


def _recovered(
    retained: np.ndarray, features: np.ndarray, rows: dict[int, np.ndarray], k: int, seed: int
) -> float:
    """% of the samples that were not drawn which go to their own class, mean of DRAWS draws."""
    shares, directions = [], _unit(features)
    for number in range(DRAWS):
        draw = np.random.default_rng([seed, number])
        drawn = [draw.permutation(of_class) for of_class in rows.values()]
        imprinted = np.stack([features[own[:k]].mean(0) for own in drawn])  # (forgotten, d)
        # The retained come first: of equals, argmax takes the first, and a tie recovers nothing.
        prototypes = _unit(np.concatenate([retained, imprinted]))
        right = [
            (directions[own[k:]] @ prototypes.T).argmax(1) == len(retained) + place
            for place, own in enumerate(drawn)
        ]
        shares.append(100 * np.concatenate(right).mean())
    return float(np.mean(shares))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
