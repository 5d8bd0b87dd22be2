"""A network of the user: any function, or class, that returns an ``nn.Module``.

The module that holds it must be importable: in the current folder when a stage runs, or installed.
A factory is called by its name, and names come from parameters and from stored models: it must lie
in the package ``own``, or in one that ``own/packages.py`` allows. Nothing else is imported.
Weights fit the code that made them, so whoever stores weights stores ``source_sha256`` beside them.
"""

import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imu.models import evaluating, find_head

OWN = "own"  # package of the user's code
PACKAGES = "own.packages"  # its ALLOWED: names of other modules that factories may come from


@dataclass(frozen=True, kw_only=True)
class Config:
    factory: str  # "package.module:function"
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)  # of it; JSON values
    head: str = ""  # name of the head; none: the linear layer whose output is the prediction

    def __post_init__(self) -> None:
        module, _, function = self.factory.partition(":")
        if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(f"factory must be like package.module:function, got {self.factory!r}")
        try:
            stored = json.loads(json.dumps(self.arguments, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments must be JSON values: {error}") from error
        if stored != self.arguments or not isinstance(self.arguments, dict):
            raise ValueError(f"arguments must be JSON values by name, got {self.arguments!r}")


def build(config: Config, image: tuple[int, int, int], classes: int) -> nn.Module:
    """What the factory returns, for images (n, channels, height, width), its head found.

    Raises ValueError when the factory is not ``allowed``, there is none, it does not take the
    arguments or does not return an ``nn.Module``, when the network cannot take an image or does
    not give (1, classes) for it, or when ``config.head`` is not its head. A network without a head
    is built.
    """
    _, function = _factory(config)
    try:
        inspect.signature(function).bind(**config.arguments)
    except TypeError as error:
        raise ValueError(f"{config.factory} does not take network.arguments: {error}") from error
    network = function(**config.arguments)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{config.factory} must return an nn.Module, got {type(network).__name__}")
    _check_outputs(config, network, image, classes)
    if config.head:
        find_head(network, image, config.head)
    else:
        with suppress(ValueError):  # it is remembered, and raised by what needs a head
            find_head(network, image)
    return network


def source_sha256(config: Config) -> str:
    """SHA-256 of ``source_file``. What that file imports is not seen."""
    return hashlib.sha256(source_file(config).read_bytes()).hexdigest()


def source_file(config: Config) -> Path:
    """The file that defines the factory.

    Raises ValueError when there is no such factory, no source of it, or it is not ``allowed``.
    """
    module, function = _factory(config)
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an instance that can be called
        file = module.__file__
    if file is None or not Path(file).is_file():
        raise ValueError(f"there is no source file of {config.factory}")
    return Path(file)


def allowed() -> tuple[str, ...]:
    """Modules that factories may come from, with all below them; ``PACKAGES`` can name more."""
    try:
        named = importlib.import_module(PACKAGES).ALLOWED
    except ModuleNotFoundError as error:
        if error.name not in (OWN, PACKAGES):
            raise
        named = ()
    return (OWN, "imu.models", *named)


def _require_allowed(factory: str, module: str) -> None:
    if not any(f"{module}.".startswith(f"{name}.") for name in allowed()):
        raise ValueError(
            f"factory {factory}: the module {module} is neither in {OWN}/ nor named in ALLOWED of "
            f"{OWN}/packages.py; allowed are {', '.join(allowed())}"
        )


def _factory(config: Config) -> tuple[ModuleType, Callable[..., Any]]:
    name, _, attribute = config.factory.partition(":")
    _require_allowed(config.factory, name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{config.factory}: importing {name} failed: {error}") from error
        raise ValueError(
            f"{config.factory}: there is no module {error.name!r} in the current folder or among "
            "the installed packages"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{config.factory}: {module.__file__} has no function {attribute!r}")
    # What a module merely imported, such as os.system, is not its own.
    made: Any = function
    while isinstance(made, functools.partial):
        made = made.func
    _require_allowed(config.factory, inspect.unwrap(made).__module__)
    return module, function


@torch.no_grad()
def _check_outputs(
    config: Config, network: nn.Module, image: tuple[int, int, int], classes: int
) -> None:
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    try:
        with evaluating(network):
            found = network(like.new_zeros((1, *image)))
    except Exception as error:  # the user's code may raise anything; it must be named
        raise ValueError(
            f"the network of {config.factory} cannot take an image of shape {tuple(image)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != (1, classes):
        raise ValueError(
            f"the network of {config.factory} must give (1, {classes}) for one image, one number "
            f"per class, got {shape}"
        )
