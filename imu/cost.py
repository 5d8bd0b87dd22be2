"""Work in floating-point operations: a cost that does not depend on the machine.

Counted are multiply-adds (as 2) of every ``nn.Linear``, ``nn.Conv2d``, ``nn.MultiheadAttention``,
forward, and where autograd will need them, the gradients of the layer's weight and input, each as
much again; for a derivative along a direction (``torch.func.jvp``) the tangents of both, save those
of attention. What ``torch.func.vmap`` maps over is counted in full. Products outside such layers,
as in a closed form, are not counted.
``torch.utils.flop_counter`` counts the same but slows small networks down 4 times, which would
spoil the times measured beside it; a test holds the two against each other.
"""

from types import TracebackType

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch
from torch.autograd import forward_ad


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
        if "forward" in vars(module):  # replaced: its output was recorded (imu.influences.prefix)
            return
        if isinstance(module, nn.MultiheadAttention):
            self.total += _attention(module, *inputs[:2])
        if not isinstance(module, nn.Linear | nn.Conv2d):
            return
        multiply_adds = _unwrapped(output).numel() * module.weight[0].numel()
        operands = (module.weight, inputs[0])
        # Forward mode multiplies both tangents, those that are 0 included.
        derivatives = 2 if any(map(_dual, operands)) else sum(map(_tracked, operands))
        self.total += 2 * multiply_adds * (1 + derivatives)


def _attention(module: nn.MultiheadAttention, queries: Tensor, keys: Tensor) -> int:
    """Four projections, of queries, keys, values and outputs, and the products between tokens."""
    width = module.embed_dim
    asking, asked = (_unwrapped(t).numel() // width for t in (queries, keys))
    projections = 2 * (asking + asked) * width**2
    products = 2 * asking * keys.shape[1 if module.batch_first else 0] * width
    weight = module.in_proj_weight if module.in_proj_weight is not None else module.q_proj_weight
    tracked = [_tracked(weight), _tracked(queries)]
    return 2 * (projections * (1 + sum(tracked)) + products * (1 + 2 * any(tracked)))


def _unwrapped(tensor: Tensor) -> Tensor:
    """The tensor below those of ``torch.func``, which hide what is mapped over."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def _dual(tensor: Tensor) -> bool:
    """Whether ``tensor`` carries a derivative along a direction."""
    wrapped = functorch.is_gradtrackingtensor(tensor)
    return wrapped and forward_ad.unpack_dual(tensor).tangent is not None


def _tracked(tensor: Tensor) -> bool:
    """Whether the derivative with respect to ``tensor`` will be computed."""
    if functorch.is_gradtrackingtensor(tensor):
        return tensor.requires_grad
    if functorch.peek_interpreter_stack() is not None:  # torch.func tracks what it wraps alone
        return False
    return tensor.requires_grad and torch.is_grad_enabled()
