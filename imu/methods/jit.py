"""JiT: make the model smooth around the forget samples (Foster et al. 2024, "Zero-Shot Machine
Unlearning at Scale via Lipschitz Regularization", arXiv 2402.01401).

Minimises mean_i mean_k ‖z(x_i) − z(x_i + ε_k)‖₂ / ‖ε_k‖₂ with fresh Gaussian noise ε_k ~ N(0, σ²),
one update per batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.adversarial import continuous
from imu.methods.common.descent import Sgd, descend
from imu.objectives import Objective

NEEDS = frozenset({"forget"})
SEARCH = {
    "sigma": (0.2, 0.5),
    "sgd.learning_rate": (3e-4, 1e-3, 3e-3),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    sigma: float = 0.5  # of the noise, in the unit of the inputs
    draws: int = 25  # noisy copies per sample
    sgd: Sgd = Sgd(learning_rate=0.001, epochs=5)

    def __post_init__(self) -> None:
        check_fields(self, sigma="> 0", draws=">= 1")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the local Lipschitz estimate."""
    images = continuous(objective, forget.samples)

    def loss(rows: Tensor) -> Tensor:
        batch = images[rows]
        shape = (config.draws, *batch.shape)
        noise = config.sigma * torch.randn(shape, generator=generator, dtype=images.dtype)
        noise = noise.to(images.device)  # (draws, b, ...)
        noisy = objective.logits(model, (batch + noise).flatten(0, 1))
        change = objective.logits(model, batch) - noisy.unflatten(0, shape[:2])  # (draws, b, c)
        return (change.norm(dim=-1) / noise.flatten(2).norm(dim=-1)).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
