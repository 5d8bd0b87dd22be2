"""What a search may try: for each parameter of a method a range of numbers, or choices."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from math import isfinite, log, prod
from typing import Annotated, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from imu import discovery
from tasks import tune
from tasks.files import params

Number = (
    Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
)
Scalar = bool | Number | str
NEAR = 0.05  # of a range: as near to an end, the best is said to lie there


class Range(BaseModel):
    """Numbers from low to high; whole ones where the parameter is a whole number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Number
    high: Number
    log: bool = Field(default=False, description="as many trials per factor of ten, not per unit")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be < high, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"low must be > 0 where log is true, got {self.low}")
        return self


Choices = Annotated[list[Scalar], Field(min_length=2)]
Space = dict[str, Range | Choices]


def read(texts: Sequence[str]) -> Space:
    """From a command line: ``step=0.01..1:log`` is a range, ``sgd.epochs=5,10`` are choices.

    Values are read as in ``params.yaml``. Raises ParameterError for what is neither, and for a
    parameter that is named twice.
    """
    space: Space = {}
    for text in texts:
        path, _, values = text.partition("=")
        if path in space:
            raise params.ParameterError(f"space: {path!r} is named twice")
        ends = re.fullmatch(r"(.+)\.\.([^:]+?)(:log)?", values)
        parts = [_value(part, text) for part in (ends.groups()[:2] if ends else values.split(","))]
        numbers = all(isinstance(p, int | float) and not isinstance(p, bool) for p in parts)
        if not path or None in parts or (not numbers if ends else len(parts) < 2):
            raise params.ParameterError(
                f"space: {text!r} must be PARAMETER=LOW..HIGH, PARAMETER=LOW..HIGH:log or "
                "PARAMETER=CHOICE,CHOICE, of finite values"
            )
        try:
            space[path] = Range(low=parts[0], high=parts[1], log=bool(ends[3])) if ends else parts
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise params.ParameterError(f"space: {path}: {reason}") from None
    return space


def fixed(texts: Sequence[str]) -> dict[str, Any]:
    """From a command line: ``weights=permuted``. Raises ParameterError as ``read`` does."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or name in found or _value(value, text) is None:
            raise params.ParameterError(f"{text!r} must be PARAMETER=VALUE, each parameter once")
        found[name] = _value(value, text)
    return found


def default(method: str) -> Space:
    """The method's SEARCH. Raises ParameterError for a method that has none."""
    if not (search := named(method)):
        raise params.ParameterError(
            f"space: imu/methods/{method}.py has no SEARCH: say which parameters to search"
        )
    return search


def named(method: str) -> Space:
    """The method's SEARCH; {} where it has none."""
    search = getattr(discovery.load("imu.methods", method), "SEARCH", {})
    return {path: list(values) for path, values in search.items()}


def distributions(space: Space, entry: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """For Optuna. entry: of ``params.yaml``, whose parameters are searched.

    Raises ParameterError for a parameter that the method does not have, a range of what is no
    number, a value that it does not take, and the same choice twice.
    """
    present = settings(entry)
    found: dict[str, BaseDistribution] = {}
    for path, values in space.items():
        if path not in present:
            known = ", ".join(present) or "no parameters"
            raise params.ParameterError(
                f"space: {entry['method']} has no parameter {path!r}; known are {known}"
            )
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            _require(entry, path, value)
        if isinstance(values, list):
            if len({repr(value) for value in values}) < len(values):
                raise params.ParameterError(f"space: {path} has the same choice twice: {values}")
            found[path] = CategoricalDistribution(values)
        elif isinstance(present[path], int):
            found[path] = IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            found[path] = FloatDistribution(values.low, values.high, log=values.log)
    return found


def settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of an entry of ``params.yaml`` by its dotted path."""
    return params.flattened(asdict(tune.configured(entry, {})))


def words(values: Range | list[Scalar]) -> str:
    """Such as "0.01 to 1.0, log" or "5, 10"."""
    if isinstance(values, Range):
        return f"{values.low} to {values.high}" + (", log" if values.log else "")
    return ", ".join(map(str, values))


def inside(space: Space, candidate: Mapping[str, Any]) -> bool:
    """Whether the space has the candidate."""
    return all(
        values.low <= candidate[path] <= values.high
        if isinstance(values, Range)
        else candidate[path] in values
        for path, values in space.items()
    )


def combinations(found: Mapping[str, BaseDistribution], limit: int) -> list[dict[str, Any]]:
    """Every candidate there is, where these are at most ``limit``; else none."""
    values: list[Sequence[Any]] = []
    for distribution in found.values():
        if isinstance(distribution, CategoricalDistribution):
            values.append(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            values.append(range(distribution.low, distribution.high + 1))
        else:
            return []
    if prod(map(len, values)) > limit:
        return []
    return [dict(zip(found, combination, strict=True)) for combination in product(*values)]


def edges(space: Space, candidate: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that lie at an end of what may be tried, and which: "lower" or "upper".

    Of choices those that are numbers have ends, where there are more than two.
    """
    found = {}
    for path, values in space.items():
        if isinstance(values, Range):
            scale: Callable[[Any], float] = log if values.log else float
            low, high = scale(values.low), scale(values.high)
            near = NEAR * (high - low)
        elif len(numbers := [v for v in values if isinstance(v, int | float)]) == len(values) > 2:
            scale, low, high, near = float, min(numbers), max(numbers), 0.0
        else:
            continue
        value = scale(candidate[path])
        if value - low <= near:
            found[path] = "lower"
        elif high - value <= near:
            found[path] = "upper"
    return found


def _require(entry: Mapping[str, Any], path: str, value: Any) -> None:
    try:
        tune.configured(entry, {path: value})
    except params.ParameterError as error:
        raise params.ParameterError(
            f"space: {str(error).removeprefix(f'{params.FILE}: ')}"
        ) from None


def _value(text: str, whole: str) -> Any:
    """A finite number, a truth value or a word; None for anything else."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise params.ParameterError(f"space: {whole!r}: {text!r} is no value") from error
    finite = isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))
    return value if finite else None
