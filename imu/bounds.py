"""The one way in which values are checked against what is allowed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from math import inf
from typing import Any, Literal, get_args, get_origin

SEED = "in [0, 4294967296)"  # what every generator of random numbers takes
MOST = 1_000_000  # of whatever is counted, where nothing else bounds it


def require(name: str, value: float, bound: str) -> None:
    """Raises ValueError unless the finite number ``value`` is within ``bound``.

    >>> require("momentum", 1.0, "in [0, 1)")
    Traceback (most recent call last):
    ValueError: momentum must be in [0, 1), got 1.0
    >>> require("epochs", 3, ">= 1")
    """
    sign, *limits = bound.replace(",", "").split()
    if sign == "in":
        low, high = float(limits[0][1:]), float(limits[1][:-1])
        over, under = limits[0][0] == "[", limits[1][-1] == "]"
    else:
        low, high, over, under = float(limits[0]), inf, sign == ">=", False
    if not (low < value < high or (over and value == low) or (under and value == high)):
        finite = "" if -inf < value < inf else " and finite"
        raise ValueError(f"{name} must be {bound}{finite}, got {value!r}")


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        said = [*map(repr, choices)]
        listed = " or ".join([", ".join(said[:-1]), said[-1]])
        raise ValueError(f"{name} must be {listed}, got {value!r}")


def once(name: str, values: Sequence[str]) -> None:
    """Raises ValueError where one of ``values`` stands there twice."""
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{name} must name each once, got {value!r} twice")


def check_fields(config: Any, **bounds: str) -> None:
    """Raises ValueError for a field of the dataclass ``config`` that is out of its bound.

    bounds: by field, as in ``require``; whole numbers without an upper one are ``MOST`` at most.
    Fields of the type ``Literal`` are checked without one.
    """
    for field in fields(config):
        if get_origin(field.type) is Literal:
            one_of(field.name, getattr(config, field.name), get_args(field.type))
    for name, bound in bounds.items():
        value = getattr(config, name)
        require(name, value, bound)
        if isinstance(value, int) and value > MOST and not bound.startswith("in"):
            raise ValueError(f"{name} must be {bound} and <= {MOST}, got {value}")
