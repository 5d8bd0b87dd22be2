"""Where in a network the positions of a sequence see each other, found by what it computes."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from imu.models.common.modes import evaluating


def attention(model: nn.Module, run: Callable[[], object], last: int) -> tuple[str, ...]:
    """Names of the ``last`` modules with parts whose output at a position depends on earlier ones.

    Of modules within each other the innermost counts: with its projections of queries, keys, values
    and output, whatever they are called. run: a pass of ``model`` with two positions at least. Each
    module is asked for the gradient of what leaves it last by what enters it first. The network
    itself is not counted, so that none may be found.
    """
    found: list[str] = []
    entered: dict[str, Tensor] = {}

    def enter(name: str, given: Any) -> None:
        sequence = _sequence(given)
        if sequence is not None:
            if not sequence.requires_grad:  # all before it is frozen
                sequence.requires_grad_()
            entered[name] = sequence

    def leave(name: str, output: Any) -> None:
        first, left = entered.pop(name, None), _sequence(output)
        if first is None or left is None or not left.requires_grad:
            return
        # Its own direction: the sum of what a normalisation puts out depends on nothing.
        along = torch.linspace(-1, 1, left.shape[-1]).to(left)
        last_position = (left[:, -1] * along).sum()
        (slope,) = torch.autograd.grad(last_position, first, retain_graph=True, allow_unused=True)
        inside = any(inner.startswith(f"{name}.") for inner in found)
        if slope is not None and slope[:, 0].any() and not inside:
            found.append(name)

    with ExitStack() as undo:
        for name, module in model.named_modules():
            if not name or not any(True for _ in module.children()):
                continue
            hooks = (
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: enter(name, (args, kwargs)),
                    with_kwargs=True,
                ),
                module.register_forward_hook(lambda _, __, output, name=name: leave(name, output)),
            )
            for hook in hooks:
                undo.callback(hook.remove)
        undo.enter_context(evaluating(model))
        undo.enter_context(torch.enable_grad())
        run()
    return tuple(found[-last:])


def _sequence(given: Any) -> Tensor | None:
    """The first tensor (n, positions, d) of real numbers."""
    leaves = (leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor))
    return next((t for t in leaves if t.dim() == 3 and t.is_floating_point()), None)
