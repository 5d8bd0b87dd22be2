"""Whether a trained network and a data set number their classes alike.

The one-to-one assignment of outputs to classes that is right most often is that of the Hungarian
method on the confusion matrix (Kuhn 1955, https://doi.org/10.1002/nav.3800020109).
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

MUCH = 0.1  # of the samples; or one class's share, where that is less
ERRORS = 3  # standard errors of a difference that is no chance


class Predicted(NamedTuple):
    """Labels and predictions of samples, int arrays of shape (n,)."""

    labels: np.ndarray
    predicted: np.ndarray


def best_order(seen: Predicted, classes: int) -> np.ndarray:
    """Output -> the class it stands for, (classes,); where nothing tells, the one of its number."""
    confusion = np.eye(classes, dtype=np.int64)  # together less than one sample below
    np.add.at(confusion, (seen.predicted, seen.labels), classes + 1)
    order: np.ndarray = linear_sum_assignment(confusion, maximize=True)[1]
    return order


def better_order(seen: Predicted, unseen: Predicted, classes: int) -> np.ndarray | None:
    """The order that fits much better than the present one, as in ``best_order``; None if none.

    It is found on ``seen`` and tried on ``unseen``, where a fit to chance is no better. With g
    samples of these right in the new order alone and l in the present one alone, it must hold that
    g − l > 3 √(g + l) (McNemar 1947, https://doi.org/10.1007/BF02295996) and that g − l is a tenth
    of the samples, or one class's share where that is less.
    """
    order = best_order(seen, classes)
    now, then = (p == unseen.labels for p in (unseen.predicted, order[unseen.predicted]))
    gained, lost = int((then & ~now).sum()), int((now & ~then).sum())
    much = min(MUCH, 1 / classes) * len(unseen.labels)
    if gained - lost > ERRORS * (gained + lost) ** 0.5 and gained - lost >= much:
        return order
    return None


def remarks(of_sets: Mapping[str, Predicted], classes: Sequence[str]) -> list[str]:
    """In sentences: accuracies, the order of the classes, and whether something seems amiss.

    of_sets: first the set that the network was trained on, then those that it has not seen.
    classes: names, in the order of the data.
    """
    accuracies = {name: _accuracy(found) for name, found in of_sets.items()}
    lines = [
        "right on " + ", ".join(f"{value:.2f} % of {name}" for name, value in accuracies.items()),
        "classes in this order: " + ", ".join(f"{k} {name!r}" for k, name in enumerate(classes)),
    ]
    seen, *others = of_sets.values()
    unseen = Predicted(*map(np.concatenate, zip(*others, strict=True)))
    order = better_order(seen, unseen, len(classes))
    if order is not None:
        then = _accuracy(Predicted(unseen.labels, order[unseen.predicted]))
        names = json.dumps([classes[label] for label in order], ensure_ascii=False)
        lines.append(
            "WARNING: these weights number the classes otherwise, it seems: in another order they "
            f"are right on {then:.2f} % of what they have not seen, now on "
            f"{_accuracy(unseen):.2f} %. That is, in params.yaml, data.classes: {names}"
        )
    elif accuracies[trained := next(iter(of_sets))] < 50 * (1 + 1 / len(classes)):
        lines.append(
            f"WARNING: that is little for {trained}, which they are said to be trained on. Do they "
            "fit the data: data.classes in their order; data.size, fit and resize; pixels.mean "
            "and std; the part of the images that they were trained on?"
        )
    return lines


def _accuracy(found: Predicted) -> float:
    return 100 * float((found.predicted == found.labels).mean())
