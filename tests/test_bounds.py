"""What is checked of values, in the one place that checks them."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest

from imu import bounds


@pytest.mark.parametrize(
    ("bound", "within", "out"),
    [
        ("> 0", (1e-9, 7), (0, -1.0)),
        (">= 2", (2, 2.5), (1, -5)),
        ("in [0, 1)", (0, 0.5), (-0.1, 1)),
        ("in (0, 1]", (0.5, 1), (0, 1.1)),
        ("in [3, 10000]", (3, 10000), (2, 10001)),
    ],
)
def test_a_bound_has_the_ends_that_it_names(
    bound: str, within: tuple[float, ...], out: tuple[float, ...]
) -> None:
    for value in within:
        bounds.require("x", value, bound)
    for value in (*out, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="x must be") as raised:
            bounds.require("x", value, bound)
        finite = "" if math.isfinite(value) else " and finite"
        assert str(raised.value) == f"x must be {bound}{finite}, got {value!r}"


@dataclass(frozen=True, kw_only=True)
class Config:
    share: float = 0.5
    kind: Literal["a", "b", "c"] = "a"
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        bounds.check_fields(self, share="in (0, 1]", count=">= 1", seed=bounds.SEED)


def test_fields_are_checked_by_their_bounds_and_by_their_types() -> None:
    assert Config(share=1.0, kind="c").kind == "c"
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got 0"):
        Config(share=0)
    with pytest.raises(ValueError, match="kind must be 'a', 'b' or 'c', got 'd'"):
        Config(kind="d")  # type: ignore[arg-type]


def test_whole_numbers_have_an_end() -> None:
    assert Config(count=bounds.MOST, seed=2**32 - 1).count == bounds.MOST
    for value in (bounds.MOST + 1, 10**400):
        with pytest.raises(ValueError, match=r"^count must be >= 1 and <= 1000000, got 10"):
            Config(count=value)
    for value in (-1, 2**32, 2**64):
        with pytest.raises(ValueError, match=r"^seed must be in \[0, 4294967296\), got "):
            Config(seed=value)


def test_what_is_named_is_named_once() -> None:
    bounds.once("classes", ("a", "b"))
    with pytest.raises(ValueError, match="classes must name each once, got 'a' twice"):
        bounds.once("classes", ("a", "b", "a"))
