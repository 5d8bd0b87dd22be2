"""SSD, selective synaptic dampening: shrink the weights that the forget set needs and the rest does
not (Foster et al. 2024, arXiv 2308.07707).

With I the diagonal empirical Fisher, mean over samples of squared gradients, over all training
data (I_D) and over the forget set (I_f):

    where I_f > selection · I_D:   θ ← min(dampening · I_D / I_f, 1) θ

As I_D >= I_f |D_f| / |D|, nothing is dampened where selection >= |D| / |D_f|. One pass, no
training. Needs the retain set (I_D is taken over D = D_r ∪ D_f, the training data).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.influences.parameters import per_sample_gradients
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import watcher
from imu.models import trainable
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "selection": (1.0, 2.0, 3.0, 5.0, 7.0),
    "dampening": (0.3, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    selection: float = 5.0  # α of the paper: how much more important to D_f than to all data
    dampening: float = 1.0  # λ of the paper
    chunk: int = 64  # samples whose gradients are held at once

    def __post_init__(self) -> None:
        check_fields(self, selection="> 0", dampening="> 0", chunk=">= 1")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Yields the original and the dampened model."""
    watch = watcher(model, objective, forget)
    yield watch(0)
    of_forget = importances(model, objective, forget.samples, config.chunk)
    of_retain = importances(model, objective, retain, config.chunk)
    share = len(forget.samples) / (len(forget.samples) + len(retain))
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            own = of_forget[name]
            whole = share * own + (1 - share) * of_retain[name]
            factor = (config.dampening * whole / own).clamp(max=1)
            # Where the forget set has no importance the quotient is not used.
            parameter.mul_(torch.where(own > config.selection * whole, factor, 1.0))
    yield watch(1)


def importances(
    model: nn.Module, objective: Objective, samples: Samples, chunk: int
) -> dict[str, Tensor]:
    """Mean over samples of the squared gradient of the loss, for every parameter."""
    total = {name: torch.zeros_like(p) for name, p in trainable(model).items()}
    for gradients in per_sample_gradients(model, objective, samples, list(total), chunk):
        for name, values in gradients.items():
            total[name] += values.square().sum(0) / len(samples)
    if bad := [name for name, values in total.items() if not values.isfinite().all()]:
        raise FloatingPointError(f"the importance of {bad[0]} is not finite")
    return total
