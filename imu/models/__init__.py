"""One network per file; a file offers ``Config`` and ``build(config, channels, classes)``."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def features_and_logits(
    model: nn.Module, images: Tensor, batch_size: int = 512
) -> tuple[Tensor, Tensor]:
    """One pass in evaluation mode: the head's input (n, d) and its output (n, classes).

    The training mode of the network is put back afterwards.
    """
    seen: list[Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        logits = [model(batch) for batch in images.split(batch_size)]
    finally:
        hook.remove()
        for module, training in modes:
            module.training = training
    return torch.cat(seen), torch.cat(logits)  # (n, d), (n, classes)


@contextmanager
def only_head_trains(model: nn.Module) -> Iterator[None]:
    """Inside, no gradient is computed for any parameter outside the head."""
    of_head = set(head(model).parameters())
    frozen = [p for p in model.parameters() if p.requires_grad and p not in of_head]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
