"""In which mode a network is, and which of its parameters may move."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in evaluation mode; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def only_trains(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside, no gradient is computed for any parameter of ``model`` but the given ones."""
    trained = set(parameters)
    frozen = [p for p in model.parameters() if p.requires_grad and p not in trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may move, by name: those that require a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
