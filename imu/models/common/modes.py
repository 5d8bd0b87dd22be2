"""In which mode a network is, which of its parameters may move, and where they are."""

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


def places(model: nn.Module) -> dict[str, str]:
    """Every place of a parameter or buffer, and its name, under which torch lists it.

    A tensor that layers share has several places, a layer with several names is one. To be used
    with ``functional_call(..., tie_weights=False)``: what torch does otherwise leaves a layer with
    several names without its parameters.
    """
    names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    return {
        f"{path}.{own}" if path else own: names[id(tensor)]
        for path, module in model.named_modules()
        for own, tensor in (
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        )
    }
