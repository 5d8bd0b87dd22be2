"""Which samples a request means, and what the model has to do with each of them."""

import hashlib
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pandas as pd

from imu import selecting, splitting
from tasks import data, split
from tasks.erasing import ErasureError
from tasks.files import params
from tasks.files.forgotten import mark
from tasks.files.workspace import Workspace

UNUSED = "not used"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a letter asks for: all samples of subjects, or samples by their ids.

    settings: what differs from params.yaml, by dotted path; it names the data set.
    """

    subjects: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.subjects) == bool(self.ids):
            raise ErasureError(
                "a request names subjects, or ids: one of the two, "
                f"got {len(self.subjects)} subjects and {len(self.ids)} ids"
            )
        if not all(isinstance(n, str) and _is_text(n) for n in (*self.subjects, *self.ids)):
            raise ErasureError("each name must be a text, not empty and without control characters")

    @property
    def kind(self) -> str:
        return "subject" if self.subjects else "ids"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self.subjects, *self.ids}))


def _is_text(name: str) -> bool:
    return name != "" and all(unicodedata.category(c) not in ("Cc", "Cs") for c in name)


class Match(NamedTuple):
    """What is to be forgotten now.

    samples: columns id, sha256, set (train, validation, test, not used) and of (the id of which it
    is an exact copy, or ""). kept: exact copies under other ids that stay, likewise. before: how
    many were forgotten by earlier requests. reason: why it cannot be judged whether they were
    forgotten; "" where it can. digests: of the training set, before and after.
    """

    samples: pd.DataFrame
    kept: pd.DataFrame
    before: int
    reason: str
    digests: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        found = self.samples["set"].value_counts()
        return {name: int(found.get(name, 0)) for name in ("train", "validation", "test", UNUSED)}


def match(workspace: Workspace, asked: Asked, *, twins: bool) -> Match:
    """Find the samples in the data and the split of ``workspace``.

    twins: exact copies of them under other ids are forgotten too. Raises ErasureError for what
    the data do not have.
    """
    config = params.load(workspace.root, "split", splitting.Config)
    found = workspace.dataset()
    samples = data.samples_of(found)
    before = data.forgotten_before(workspace, samples, config.forgotten_before)
    scenario: Any = asked.kind
    config = replace(
        config,
        forget_twins=twins,
        scenario=scenario,
        by_subject=splitting.SubjectRequest(subjects=asked.names),
        by_ids=splitting.IdsRequest(file="the request"),
    )
    requested = pd.DataFrame({"id": asked.names})
    try:
        ids = selecting.named(samples, config, requested, found.attributes)
    except ValueError as error:
        raise ErasureError(str(error)) from error
    sets = split.sets_of(samples, config, found)
    gone = set(before["id"])
    given = matched(samples, sets, ids - gone, gone, twins=twins)
    reason = ""
    if given.counts["train"]:
        config = replace(config, scenario="ids")
        try:
            selecting.select(
                samples,
                sets,
                config,
                found.classes,
                pd.DataFrame({"id": sorted(ids - gone)}),
                before=before,
                together=found.together,
            )
        except ValueError as error:
            reason = str(error)
    return given._replace(before=len(ids & gone), reason=reason)


def matched(
    samples: pd.DataFrame,
    sets: dict[str, pd.DataFrame],
    ids: Collection[str],
    before: Collection[str],
    *,
    twins: bool,
) -> Match:
    """The same for known ids, none of which is in ``before``; whether it can be judged is open."""
    where = {i: name for name, rows in sets.items() for i in rows["id"]}
    asked = samples[samples["id"].isin(ids)]
    of = asked.drop_duplicates("sha256").set_index("sha256")["id"]
    copies = samples[
        samples["sha256"].isin(of.index)
        & ~samples["id"].isin(asked["id"])
        & ~samples["id"].isin(before)
    ]

    def table(rows: pd.DataFrame, of: "pd.Series[str] | None" = None) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "id": rows["id"],
                "sha256": rows["sha256"],
                "set": [where.get(i, UNUSED) for i in rows["id"]],
                "of": "" if of is None else of.reindex(rows["sha256"]).to_numpy(),
            }
        )

    copied = table(copies, of)
    every = pd.concat([table(asked), *([copied] if twins else [])], ignore_index=True)
    train = sets["train"][~sets["train"]["id"].isin(before)]
    digests = {
        "before": digest(train),
        "after": digest(train[~train["id"].isin(every["id"])]),
    }
    return Match(every, copied.iloc[:0] if twins else copied, 0, "", digests)


def digest(samples: pd.DataFrame) -> str:
    """SHA-256 of a set of samples, whatever their order."""
    marks = sorted(mark(i, s) for i, s in samples[["id", "sha256"]].to_numpy())
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()
