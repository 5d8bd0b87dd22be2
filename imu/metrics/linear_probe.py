"""Linear probe: can the label of the forget set still be read from the features?

A new multinomial logistic regression learns labels from the frozen features of validation samples
of all classes, the forgotten ones among them, and is asked for the labels of the forget set, on
which it never trains. Test samples take no part. Source: Alain & Bengio 2016, arXiv 1610.01644.

    min_{V, b}  Σ_i CE(V x_i + b, y_i) + ½ ‖V‖²,    x = (h − mean h) / (std h · √d)

h is what enters the head, shape (n, d); mean and standard deviation are those of the validation
samples. The division by √d gives x a mean square length of 1, so the penalty binds alike in narrow
and wide networks. Features in another scale, per unit or all, give the same answer, and so does
any head: replacing or masking it changes nothing. A linear mix of units that shrinks some
directions can hide a class from this probe: what it does not find may still be there.

Two values. ``probe`` learns from every validation sample; a retrained network reads a class that
it never saw almost as well, because a new class is often linear in features that tell the others.
``probe_5`` learns from 5 samples of each class (all where there are fewer), the mean of 20 draws:
so few show which classes the features *keep apart*, and it is the more telling number.
"""

import warnings
from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Outputs

FEW = 5  # samples of each class
DRAWS = 20  # of the few
ITERATIONS = 1000  # of L-BFGS at most; tens suffice under this penalty

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
    f"probe_{FEW}": About(
        "features",
        "reference",
        "%",
        f"the same, learned from {FEW} validation samples of each class, mean of {DRAWS} draws",
    ),
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
    """{"probe": %, "probe_5": %}; nothing where they are ``unmet``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if unmet(outputs.labels, outputs.forget_classes):
        return {}
    labels = outputs.labels["validation"]
    scaler = StandardScaler().fit(outputs.features["validation"])
    width = np.sqrt(outputs.features["validation"].shape[1])
    known = scaler.transform(outputs.features["validation"]) / width  # (n, d)
    asked = scaler.transform(outputs.features["forget"]) / width  # (forget, d)

    def read(rows: np.ndarray) -> float:
        classifier = LogisticRegression(C=1.0, max_iter=ITERATIONS).fit(known[rows], labels[rows])
        return float(100 * (classifier.predict(asked) == outputs.labels["forget"]).mean())

    # One thread: the sums are then the same on every machine, and these are too small to share.
    with threadpool_limits(1), warnings.catch_warnings():
        # Of many classes with few samples scikit-learn asks at each fit whether they are numbers.
        warnings.filterwarnings("ignore", "The number of unique classes")
        few = [read(_few(labels, [outputs.seed, number])) for number in range(DRAWS)]
        return {"probe": read(np.arange(len(labels))), f"probe_{FEW}": float(np.mean(few))}


def _few(labels: np.ndarray, seed: list[int]) -> np.ndarray:
    """Rows of at most FEW samples of each class."""
    draw = np.random.default_rng(seed)
    classes = np.unique(labels)
    return np.concatenate([draw.permutation(np.flatnonzero(labels == c))[:FEW] for c in classes])
