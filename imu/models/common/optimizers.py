"""SGD and Adam on the functional form of torch's, ``torch.optim.sgd.sgd`` and ``adam.adam``.

The same numbers as ``torch.optim.SGD`` and ``Adam``, to the last bit. Those import torch's compiler
with the first of their steps, 1 to 4 s of every process that trains, unlearns or attacks.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.optim import adam as functional_adam
from torch.optim import sgd as functional_sgd

Rate = Callable[[int], float]  # learning rate after so many steps
Update = Callable[[list[Tensor], list[Tensor], float], None]  # parameters, gradients, rate


class Optimizer:
    """Moves ``parameters`` along their gradients; those that have none stay where they are.

    Raises ValueError when there is no parameter.
    """

    def __init__(self, parameters: Iterable[Tensor], rate: float | Rate, update: Update):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("there is no parameter to be trained")
        self.steps = 0
        self._rate, self._update = rate, update

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self.steps) if callable(self._rate) else self._rate

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        if moved:
            self._update(moved, [p.grad for p in moved if p.grad is not None], self.rate)
        self.steps += 1


def sgd(
    parameters: Iterable[Tensor],
    rate: float | Rate,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    buffers: dict[Tensor, Tensor | None] = {}

    def update(moved: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        held = [buffers.get(parameter) for parameter in moved]
        functional_sgd.sgd(
            moved,
            gradients,
            held,
            lr=rate,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            dampening=0.0,
            maximize=False,
        )
        buffers.update(zip(moved, held, strict=True))

    return Optimizer(parameters, rate, update)


def adam(
    parameters: Iterable[Tensor], rate: float | Rate, *, weight_decay: float = 0.0
) -> Optimizer:
    """With torch's β = (0.9, 0.999) and ε = 1e-8. Weights decay apart from it, as in ``AdamW``."""
    moments: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}
    fresh = partial(torch.zeros_like, memory_format=torch.preserve_format)

    def update(moved: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        for parameter in moved:
            if parameter not in moments:
                moments[parameter] = (fresh(parameter), fresh(parameter), torch.tensor(0.0))
        means, squares, steps = zip(*(moments[parameter] for parameter in moved), strict=True)
        functional_adam.adam(
            moved,
            gradients,
            list(means),
            list(squares),
            [],
            list(steps),
            lr=rate,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
            amsgrad=False,
            maximize=False,
        )

    return Optimizer(parameters, rate, update)
