"""What a network for people says: who is in an image, and whom it finds where."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from imu.metrics import Outputs

CHUNK = 256  # queries that are ranked at once
NEAREST = 5  # gallery images that are told of each query
DIGITS = 10  # of a cosine that count: equal images are equal, wherever they stand in a product


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images that are searched for, or in.

    features: float64 (n, d). people: int (n,). cameras: (n,), compared only. rows: int (n,), where
    each stands in the data set.
    """

    features: np.ndarray
    people: np.ndarray
    cameras: np.ndarray
    rows: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Images":
        return Images(
            features=self.features[which],
            people=self.people[which],
            cameras=self.cameras[which],
            rows=self.rows[which],
        )


class Ranked(NamedTuple):
    """precision: average precision of each query, NaN where nothing is right. first: the rank of
    its first right image, from 1; NaN likewise. nearest: int (n, k), places in the gallery."""

    precision: np.ndarray
    first: np.ndarray
    nearest: np.ndarray


def ranked(queries: Images, gallery: Images, nearest: int = NEAREST) -> Ranked:
    """Every query searched for in the gallery, by falling cosine of the features.

    What shows the query's person to the query's own camera is left out of its search. Right is
    what shows the same person, all else is wrong, distractors too. With r_1 < … < r_R the ranks
    of what is right,

        AP = 1/R Σ_k k / r_k,      and the query counts for CMC rank-j where r_1 <= j.

    Among equals the order is that of the gallery, as in a stable sort. Protocol: Zheng et al. 2015;
    AP as in torchreid and fast-reid, without the trapezia of the authors' MATLAB program, which
    takes the mean of the precisions on both sides of each step.
    """
    unit, found = unit_rows(gallery.features), []
    precision = np.full(len(queries.people), np.nan)
    first = precision.copy()
    places = np.arange(1, len(gallery.people) + 1)
    for at in range(0, len(queries.people), CHUNK):
        part = slice(at, at + CHUNK)
        cosine = unit_rows(queries.features[part]) @ unit.T  # (b, m)
        same = queries.people[part, None] == gallery.people
        seen = same & (queries.cameras[part, None] == gallery.cameras)
        order = np.where(seen, np.inf, -cosine.round(DIGITS)).argsort(axis=1, kind="stable")
        right = np.take_along_axis(same & ~seen, order, axis=1)
        total = right.sum(1)
        some = total > 0
        hits = (right * right.cumsum(1) / places).sum(1)
        precision[part][some] = hits[some] / total[some]
        first[part][some] = 1 + right.argmax(1)[some]
        found.append(order[:, :nearest])
    return Ranked(
        precision, first, np.concatenate(found) if found else np.zeros((0, nearest), np.int64)
    )


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one, and is equally far from all."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


@dataclass(frozen=True, kw_only=True)
class Found(Outputs):
    """``Outputs`` on people trained on, and searches.

    known: how many people were trained on by the original; their numbers come first. queries,
    gallery: as the data set has them; images held out of people trained on are in both. shown: set
    name -> the images of a set of ``Outputs``.
    """

    objective: ClassVar[str] = "identification"
    known: int
    queries: Images
    gallery: Images
    shown: dict[str, Images]

    @cached_property
    def searches(self) -> dict[str, Ranked]:
        """Group -> its queries, ranked; those without queries are absent.

        forget, retain    queries of people trained on, by whether they are forgotten whole,
                          in the whole gallery: all others are in it
        new               queries of others, in the gallery of others: the field's protocol
        """
        known = self.queries.people < self.known
        gone = np.isin(self.queries.people, self.forget_classes)
        others = self.gallery[self.gallery.people >= self.known]
        groups = {
            "forget": (known & gone, self.gallery),
            "retain": (known & ~gone, self.gallery),
            "new": (~known, others),
        }
        found = {
            name: ranked(self.queries[which], where) for name, (which, where) in groups.items()
        }
        return {name: of for name, of in found.items() if not np.isnan(of.precision).all()}

    @cached_property
    def sought(self) -> dict[str, Ranked]:
        """Set name -> its images, each taken as a query in the whole gallery."""
        return {name: ranked(images, self.gallery) for name, images in self.shown.items()}
