"""Linear probe: can the label of the forget set still be read from the features?

A new linear classifier learns labels from the frozen features of validation samples of all
classes, the forgotten ones among them, and is asked for the labels of the forget set, on which it
never trains. Test samples take no part. Source: Alain & Bengio 2016, arXiv 1610.01644. It is fitted
to one-hot labels e by ridge regression, which has a closed form, so that many draws cost little:

    min_{V, b}  Σ_i ‖V x_i + b − e(y_i)‖² + ‖V‖²,    x = (h − mean h) / (std h · √d)

h is what enters the head, shape (n, d); mean and standard deviation are those of the validation
samples. The division by √d gives x a mean square length of 1, so the penalty binds alike in narrow
and wide networks. Features in another scale, per unit or all, give the same answer, and so does
any head: replacing or masking it changes nothing. A linear mix of units that shrinks some
directions can hide a class from this probe: what it does not find may still be there.

Three values. ``probe`` learns from every validation sample; a retrained network reads a class that
it never saw almost as well, because a new class is often linear in features that tell the others.
``probe_5`` and ``probe_1`` learn from 5 samples of each class and from one (all where there are
fewer), the mean of 100 draws that are the same for every model. From one sample only a class that
the features *hold together and apart* is read. On the digits the original lies 9 to 11 standard
deviations of retrained models above their mean in ``probe_1``, 3.6 to 4.6 in ``probe_5``
(docs/verdict.md).
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Outputs

FEW = (1, 5)  # samples of each class
DRAWS = 100  # of the few

OBJECTIVE = ("classification", "identification")
NEEDS_HEAD = True
ABOUT = {
    "probe": About(
        "features",
        "reference",
        "%",
        "accuracy on the forget set of a new linear classifier of the features, learned from "
        "validation samples of all classes",
    ),
} | {
    f"probe_{few}": About(
        "features",
        "reference",
        "%",
        f"the same, learned from {few} validation sample{'s' * (few > 1)} of each class, mean of "
        f"{DRAWS} draws",
    )
    for few in FEW
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured on samples of these labels."""
    known, asked = set(labels["validation"].tolist()), set(labels["forget"].tolist())
    if len(known) < 2:
        why = f"needs validation samples of 2 or more labels, has {len(known)}"
    elif unknown := asked - known:
        why = f"needs validation samples of every forget label, has none of {len(unknown)}"
    else:
        return {}
    return dict.fromkeys(ABOUT, why)


def measure(outputs: Outputs) -> dict[str, float]:
    """{"probe", "probe_1", "probe_5"}, in %; nothing where they are ``unmet``."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if unmet(outputs.labels, outputs.forget_classes):
        return {}
    labels, features = outputs.labels["validation"], outputs.features["validation"]
    deviation = features.std(0)
    scale = np.where(deviation > 0, deviation, 1.0) * np.sqrt(features.shape[1])
    known, asked = (
        (outputs.features[name] - features.mean(0)) / scale for name in ("validation", "forget")
    )  # (n, d), (forget, d)

    def read(rows: np.ndarray) -> float:
        found = classified(known[rows], labels[rows], asked)
        return float(100 * (found == outputs.labels["forget"]).mean())

    # One thread: the sums are then the same on every machine, and these are too small to share.
    with threadpool_limits(1):
        drawn = {k: [_few(labels, k, [outputs.seed, n]) for n in range(DRAWS)] for k in FEW}
        return {"probe": read(np.arange(len(labels)))} | {
            f"probe_{k}": float(np.mean([read(rows) for rows in draws]))
            for k, draws in drawn.items()
        }


def classified(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Labels of ``asked`` (m, d), read by a ridge regression on ``known`` (n, d): (m,)."""
    classes = np.unique(labels)
    targets = (labels[:, None] == classes).astype(float)  # (n, classes)
    centre, shares = known.mean(0), targets.mean(0)
    x, y, identity = known - centre, targets - shares, np.eye(min(known.shape))
    if len(x) <= x.shape[1]:  # the smaller of two equal systems
        weights = x.T @ np.linalg.solve(x @ x.T + identity, y)  # (d, classes)
    else:
        weights = np.linalg.solve(x.T @ x + identity, x.T @ y)
    read: np.ndarray = classes[((asked - centre) @ weights + shares).argmax(1)]
    return read


def _few(labels: np.ndarray, count: int, seed: list[int]) -> np.ndarray:
    """Rows of at most ``count`` samples of each class."""
    draw = np.random.default_rng(seed)
    classes = np.unique(labels)
    return np.concatenate([draw.permutation(np.flatnonzero(labels == c))[:count] for c in classes])
