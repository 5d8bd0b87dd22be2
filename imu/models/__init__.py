"""One network per file; a file offers ``Config`` and ``build(config, image, classes)``.

``image`` is the shape of one image: (channels, height, width).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


def head_name(model: nn.Module) -> str:
    """Name of the head: the last ``nn.Linear`` in the order of definition.

    Raises ValueError when the network has no linear layer.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no nn.Linear layer to serve as the head")
    return linear[-1]


def head(model: nn.Module) -> nn.Linear:
    """The last linear layer, see ``head_name``."""
    module = model.get_submodule(head_name(model))
    assert isinstance(module, nn.Linear)
    return module


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
