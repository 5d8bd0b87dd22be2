"""What a run can be asked for: typed parameters, which Prefect's page shows as a form."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imu import discovery
from tasks.files.params import ParameterError

Method = StrEnum("Method", {name: name for name in discovery.names("imu.methods")})  # type: ignore[misc]


# Scenario -> its fields, each named as in the section split.by_<scenario> of params.yaml.
FIELDS = {
    "class": ("classes",),
    "fraction": ("fraction",),
    "ids": ("file",),
    "group": ("attribute", "values"),
    "subject": ("subjects",),
}


class Request(BaseModel):
    """What is forgotten, and under which seed; all that is left empty is as in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int | None = Field(
        default=None,
        ge=0,
        description="of the original model, its retrained references and the methods",
    )
    scenario: Literal["class", "fraction", "ids", "group", "subject"] | None = Field(
        default=None,
        description="which kind of forget set; empty: the kind whose field is filled in below",
    )
    classes: list[str] = Field(
        default=[], description="class: names of the classes to forget whole"
    )
    fraction: float | None = Field(
        default=None, gt=0, lt=1, description="fraction: share of the training samples"
    )
    file: str = Field(
        default="", description='ids: CSV or parquet file in the repository, column "id"'
    )
    attribute: str = Field(
        default="", description="group: what the data know of a sample besides its label"
    )
    values: list[str] = Field(default=[], description="group: values of the attribute")
    subjects: list[str] = Field(default=[], description="subject: whose samples to forget")
    settings: dict[str, Any] = Field(
        default={}, description='any other parameter by its path, such as {"train.epochs": 30}'
    )

    def changes(self) -> dict[str, Any]:
        """Parameters that differ from ``params.yaml``, by dotted path.

        Raises ParameterError where fields contradict each other: Prefect would show what a
        validator says with a traceback, and not before the run begins either.
        """
        for scenario, fields in FIELDS.items():
            for name in fields:
                if getattr(self, name) and scenario != self._chosen():
                    raise ParameterError(
                        f"{name} belongs to the scenario {scenario}, got the scenario "
                        f"{self.scenario}: set scenario to {scenario!r}"
                    )
        if twice := sorted(self._named().keys() & self.settings.keys()):
            raise ParameterError(f"settings repeat {twice[0]}, which has a field of its own here")
        return self._named() | self.settings

    def _chosen(self) -> str | None:
        """The scenario; where none is set, the only one of which a field is filled in."""
        filled = [of for of, fields in FIELDS.items() if any(getattr(self, f) for f in fields)]
        return self.scenario or (filled[0] if len(filled) == 1 else None)

    def _named(self) -> dict[str, Any]:
        found = {"seed": self.seed, "split.scenario": self._chosen()} | {
            f"split.by_{scenario}.{name}": getattr(self, name)
            for scenario, fields in FIELDS.items()
            for name in fields
        }
        return {path: value for path, value in found.items() if value not in (None, "", [])}
