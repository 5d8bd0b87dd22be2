"""What a request needs done that takes time or a server, and how it is to be done."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from flows.erasing.office import RETRAIN
from tasks.erasing.matching import Asked, Match
from tasks.erasing.residue import Place

# The other verdicts say that nothing was forgotten.
Accepted = Literal["indistinguishable", "distinguishable", "masked only"]


class Options(BaseModel):
    """How a request is served; recorded with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = Field(
        default=("imu_deep",),
        description="entries of unlearn, or methods, tried in this order; then retraining",
    )
    retain: bool = Field(
        default=False, description="methods that are given the retain set may be tried"
    )
    accepted: tuple[Accepted, ...] = Field(
        default=("indistinguishable",), description="verdicts that pass"
    )
    drift: float = Field(
        default=0.1,
        ge=0,
        allow_inf_nan=False,
        description="largest distance to retraining on outputs that passes, whatever the verdict "
        "(TV; of texts dP_retain)",
    )
    near: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        description="samples that stay and whose features lie nearer than this are listed; 1 is "
        "the usual distance of a sample to its nearest other",
    )
    twins: bool = Field(default=True, description="exact copies under other ids are forgotten too")
    purge: bool = Field(default=True, description="remove what shows or remembers the samples")
    backups: tuple[str, ...] = Field(
        default=(), description="places that the certificate names, and that are not touched"
    )

    @property
    def order(self) -> tuple[str, ...]:
        return (*(m for m in self.methods if m != RETRAIN), RETRAIN)


class Unlearned(NamedTuple):
    """A model that a method made, and what is said of it.

    access: the data that the method was given. before: SHA-256 of the model that it started from.
    file: where it was made. words: the verdict in words, as in the report. decided: the numbers
    that decided it. idle: the verdict of doing nothing. evidence: SHA-256 of the files with all of
    it.
    """

    model: Path
    access: str
    parameters: dict[str, Any]
    before: str
    file: str
    outcome: str
    words: str
    decided: list[str]
    idle: str
    metrics: dict[str, float]
    thresholds: dict[str, float]
    evidence: dict[str, str]


class Work(Protocol):
    """What a request needs done that takes time, or a server."""

    def match(self, asked: Asked, *, twins: bool) -> Match: ...
    def near(
        self, number: int, asked: Asked, match: Match, options: Options
    ) -> list[dict[str, Any]] | str:
        """Samples that stay: id, the one it is near to (of), distance; or why none is known."""

    def skipped(self, method: str, asked: Asked, retain: bool) -> str:
        """Why a method is passed over; "" where it is not."""

    def unlearn(self, number: int, asked: Asked, match: Match, method: str) -> Unlearned:
        """Where ``match.reason`` says that it cannot be judged, by retraining alone."""

    def promote(self, number: int, asked: Asked, model: Path, tags: dict[str, str]) -> str:
        """Returns the version."""

    def scan(self, number: int, asked: Asked) -> list[Place]:
        """Where something of the samples lies."""

    def purge(self, number: int, asked: Asked) -> tuple[list[Place], list[Place]]:
        """Remove it, but for what is kept: what was found, and what is still there."""
