"""What a run can be asked for: typed parameters, which Prefect's page shows as a form.

A union without a discriminator is a choice of forms there, with one it is a field for JSON; so
every kind of forget set has fields of its own, by which it is told from the others.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

import imu
from imu import discovery
from tasks.files import params
from tasks.files.params import ParameterError
from tasks.files.workspace import Seed

AS_IT_IS, NONE = "as in params.yaml", "none"
SETTINGS = Path("settings")  # presets: YAML files of dotted path: value, below a clone
PRESETS = sorted(file.stem for file in (Path(imu.__file__).parents[1] / SETTINGS).glob("*.yaml"))

Method = StrEnum("Method", {name: name for name in discovery.names("imu.methods")})  # type: ignore[misc]
Method.__doc__ = (  # the form shows it, as plain text
    "those for images are in settings/full.yaml, those for texts in settings/biographies.yaml; "
    "docs/methods.md says what each does, and which need the retain set."
)
Dataset = StrEnum("Dataset", {name: name for name in (AS_IT_IS, *discovery.names("imu.datasets"))})  # type: ignore[misc]
Preset = StrEnum("Preset", {name: name for name in (NONE, *PRESETS)})  # type: ignore[misc]


def _left_empty(schema: dict[str, Any]) -> None:
    """The form then shows an empty field rather than a switch to None."""
    schema.pop("default")
    (given,) = (kind for kind in schema.pop("anyOf") if kind.get("type") != "null")
    schema.update(given)


def told_apart(*forms: type[BaseModel]) -> WrapValidator:
    """Of a union of ``forms``: the one is taken whose required fields are given, that of none where
    there are none. Of a union pydantic lists what is wrong by each; its schema stays as it is.
    """

    def required(form: type[BaseModel]) -> set[str]:
        return {name for name, field in form.model_fields.items() if field.is_required()}

    def choose(given: Any, union: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(given, forms):
            return union(given)
        names = given.keys() if isinstance(given, dict) else set()
        fitting = [form for form in forms if required(form) & names]
        fitting = fitting or [form for form in forms if not required(form) and given == {}]
        if len(fitting) != 1:
            known = (" and ".join(sorted(required(form))) or "none" for form in forms)
            got = ", ".join(map(str, names)) or params.shown(given)
            raise PydanticCustomError(
                "form",
                "the fields must be those of one kind, {known}; got {got}",
                {"known": ", or ".join(known), "got": params.clipped(got)},
            )
        try:
            return fitting[0].model_validate(given)
        except ValidationError as error:
            said = "; ".join(_said(one, fitting[0]) for one in error.errors())
            raise PydanticCustomError("form", "{said}", {"said": said}) from None

    return WrapValidator(choose)


def _said(error: Any, form: type[BaseModel]) -> str:
    """An error of pydantic in a few words."""
    where = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            return f"there is no field {where} here, only {', '.join(form.model_fields) or 'none'}"
    return f"{where}: {error['msg']}, got {params.shown(error['input'])}"


class Forget(BaseModel):
    """A kind of forget set; its fields are named as in the section split.by_<scenario>."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    SCENARIO: ClassVar[str] = ""

    def changes(self) -> dict[str, Any]:
        """Parameters that differ from ``params.yaml``, by dotted path."""
        if not self.SCENARIO:
            return {}
        fields = {f"split.by_{self.SCENARIO}.{name}": value for name, value in self if value}
        return {"split.scenario": self.SCENARIO, **fields}


class AsItIs(Forget):
    """What params.yaml says."""

    model_config = ConfigDict(title=AS_IT_IS)


class Classes(Forget):
    """One class or several, whole."""

    model_config = ConfigDict(title="classes")
    SCENARIO = "class"
    classes: list[str] = Field(
        min_length=1,
        description="0 to 9 in digits and svhn; airplane, automobile, bird, cat, deer, dog, frog, "
        "horse, ship or truck in cifar10; of other data make data prints them",
        json_schema_extra={"default": ["8"]},
    )


class Fraction(Forget):
    """A random share of the training samples, or of the subjects of texts."""

    model_config = ConfigDict(title="a share")
    SCENARIO = "fraction"
    fraction: float = Field(
        gt=0,
        lt=1,
        description="between 0 and 1",
        json_schema_extra={"default": 0.1},
    )


class Ids(Forget):
    """The samples that a file lists: an erasure request."""

    model_config = ConfigDict(title="ids")
    SCENARIO = "ids"
    file: str = Field(
        min_length=1,
        description='CSV or parquet file in the repository, with a column "id"',
        json_schema_extra={"default": "requests/example.csv"},
    )


class Group(Forget):
    """Samples that share an attribute, such as a superclass of CIFAR-100."""

    model_config = ConfigDict(title="a group")
    SCENARIO = "group"
    attribute: str = Field(
        min_length=1,
        description="what the data know of a sample besides its label",
        json_schema_extra={"default": "superclass"},
    )
    values: list[str] = Field(
        min_length=1,
        description="of the attribute",
        json_schema_extra={"default": ["flowers"]},
    )


class Subjects(Forget):
    """All samples of one person or thing, or of several."""

    model_config = ConfigDict(title="subjects")
    SCENARIO = "subject"
    subjects: list[str] = Field(
        min_length=1,
        description="their names in the data",
        json_schema_extra={"default": ["subject-1"]},
    )


class Forgetting(BaseModel):
    """What is forgotten; all that is left empty is as in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    forget: Annotated[
        AsItIs | Classes | Fraction | Ids | Group | Subjects,
        told_apart(AsItIs, Classes, Fraction, Ids, Group, Subjects),
    ] = Field(default=AsItIs(), title="what to forget")
    dataset: Dataset = Field(
        default=Dataset(AS_IT_IS),
        description="docs/data.md says what each is, and which files it needs",
    )
    preset: Preset = Field(
        default=Preset(NONE),
        description="a file in settings/; head -qn 1 settings/*.yaml says what each is for",
    )
    settings: dict[str, Any] = Field(
        default={}, description='any other parameter by its path, such as {"train.epochs": 30}'
    )

    def changes(self) -> dict[str, Any]:
        """Parameters that differ from ``params.yaml``, by dotted path; a preset is overruled.

        Raises ParameterError where ``settings`` repeat what has a field of its own: Prefect would
        show what a validator says with a traceback, and not before the run begins either.
        """
        given = self.given()
        if twice := sorted(given.keys() & self.settings.keys()):
            raise ParameterError(f"settings repeat {twice[0]}, which has a field of its own here")
        file = SETTINGS / f"{self.preset}.yaml"
        preset = {} if self.preset == NONE else params.read_file(file, str(file), "paths")
        return preset | given | self.settings

    def given(self) -> dict[str, Any]:
        """Those that have a field."""
        dataset = {} if self.dataset == AS_IT_IS else {"split.dataset": str(self.dataset)}
        return self.forget.changes() | dataset


class Request(Forgetting):
    """What is forgotten, and under which seed; all that is left empty is as in params.yaml."""

    seed: Seed | None = Field(
        default=None,
        description="of the original model, its retrained references and the methods",
        json_schema_extra=_left_empty,
    )

    def given(self) -> dict[str, Any]:
        return super().given() | ({} if self.seed is None else {"seed": self.seed})
