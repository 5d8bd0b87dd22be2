"""Retrieval by the cosine of features: mean average precision and CMC of three groups of queries.

    mAP_…            mean over queries of AP = 1/R Σ_k k / r_k, r_1 < … < r_R the ranks of what is
                     right
    R1_…, R5_…, R10_…   share of the queries whose first right image has rank 1, at most 5, 10

What the query's own camera saw of its person is left out, junk is in no gallery, distractors are
wrong (``_found.ranked`` has the protocol and its sources). A query that nothing can answer counts
for nothing. Groups: forgotten people and people who stay, by images held out of training, in the
whole gallery; people whom no model saw, in the gallery of the field, so that the last are the
numbers that others report. What the retrained model finds of the forgotten is the retrieval of
people never seen, in the same gallery.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About
from imu.metrics._found import Found

OBJECTIVE = "identification"
PLACES = (1, 5, 10)
GROUPS = {
    "forget": "queries of forgotten people, held out of training",
    "retain": "queries of people who stay, held out of training",
    "new": "queries of people whom no model was trained on",
}
ABOUT = {
    name: about
    for group, queries in GROUPS.items()
    for name, about in {
        f"mAP_{group}": About("answers", "reference", "%", f"mean average precision of {queries}"),
        **{
            f"R{j}_{group}": About(
                "answers", "reference", "%", f"CMC rank-{j}: right among the first {j}; {queries}"
            )
            for j in PLACES
        },
    }.items()
}


def unmet(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Name -> why it cannot be measured.

    labels: besides sets, "query": who is searched for and can be found, and "train": whom the
    original was trained on.
    """
    return {
        f"{kind}_{group}": why
        for group, why in lacking(labels, forget_classes).items()
        for kind in ("mAP", *(f"R{j}" for j in PLACES))
    }


def lacking(labels: Mapping[str, np.ndarray], forget_classes: tuple[int, ...]) -> dict[str, str]:
    """Group -> why nobody of it can be searched for."""
    asked, known = labels["query"], np.isin(labels["query"], labels["train"])
    forgotten = np.isin(asked, forget_classes)
    reasons = {}
    if not forget_classes:
        reasons["forget"] = "needs a person who is forgotten whole"
    elif not forgotten.any():
        reasons["forget"] = "needs a query of a forgotten person that the gallery answers"
    if not (known & ~forgotten).any():
        reasons["retain"] = "needs a query of a person who stays that the gallery answers"
    if known.all():
        reasons["new"] = "needs a query of a person not trained on that the gallery answers"
    return reasons


def measure(found: Found) -> dict[str, float]:
    """mAP and CMC in % of every group that has queries."""
    values = {}
    for group, ranked in found.searches.items():
        counted = ~np.isnan(ranked.precision)
        values[f"mAP_{group}"] = 100 * float(ranked.precision[counted].mean())
        for j in PLACES:
            values[f"R{j}_{group}"] = 100 * float((ranked.first[counted] <= j).mean())
    return values
