"""Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685) of a network that is too large to train.

    y = W x + 2 U D x,    D: (r, i) as torch starts a linear layer, U: (o, r) zeros

W is frozen and D and U are trained. They are linear layers of their own, so that influence and
methods see them as any other.
"""

from typing import Any

from torch import Tensor, nn

SCALE = 2.0  # the paper's α / r


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        like: Any = {"dtype": base.weight.dtype, "bias": False}
        self.base = base
        self.down = nn.Linear(base.in_features, rank, **like)
        self.up = nn.Linear(rank, base.out_features, **like)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + SCALE * self.up(self.down(x))
        return found


def adapt(network: nn.Module, rank: int, *, besides: nn.Module) -> None:
    """Freeze ``network`` and put what is trained beside each of its linear layers.

    besides: a linear layer, the head, that stays as it is: frozen, and alone.
    """
    network.requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not besides:
                setattr(parent, name, Adapted(child, rank))
