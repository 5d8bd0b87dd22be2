"""Work in floating-point operations: a cost that does not depend on the machine.

Counted are multiply-adds (as 2) of every ``nn.Linear`` and ``nn.Conv2d``, forward, and where
autograd will need them, the gradients of the layer's weight and input, each as much again.
``torch.utils.flop_counter`` counts the same but slows small networks down 4 times, which would
spoil the times measured beside it; a test holds the two against each other.
"""

from types import TracebackType

import torch
from torch import Tensor, nn


class FlopCounter:
    """Context manager; ``total`` holds the operations of all networks run inside it."""

    def __init__(self) -> None:
        self.total = 0

    def __enter__(self) -> "FlopCounter":
        self._hook = nn.modules.module.register_module_forward_hook(self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(module, nn.Linear | nn.Conv2d):
            return
        multiply_adds = output.numel() * module.weight[0].numel()
        passes = 1
        if torch.is_grad_enabled():
            passes += int(module.weight.requires_grad) + int(inputs[0].requires_grad)
        self.total += 2 * multiply_adds * passes


def rte(retraining: float, unlearning: float) -> float:
    """Run-time efficiency: cost of retraining / cost of unlearning, influence included.

    Both in the same unit, seconds or operations. Source: arXiv 2508.01620, section 4. Raises
    ValueError when a cost is not positive.
    """
    for name, value in (("retraining", retraining), ("unlearning", unlearning)):
        if not value > 0:
            raise ValueError(f"the cost of {name} must be > 0, got {value}")
    return retraining / unlearning
