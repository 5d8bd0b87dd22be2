"""TRW: distils what retraining may say of the forget set: the original's distribution over the
others, tilted by their likeness to the forgotten one (Ebrahimpour-Boroojeny et al. 2025, "On
the Necessity of Output Distribution Reweighting for Effective Class Unlearning", arXiv 2506.20893).

Descends, over D_f ∪ D_r, the mean of −Σ_k q_k log p_k, on D_r with the one-hot label, on a forget
sample with label y and original prediction p°

    q_k ∝ p°_k exp(tilt · cos(w_k, w_y)) for k ≠ y, q_y = 0, classes forgotten whole left out alike,

w the rows of the head. A sample of a class that retraining never saw is called what is like it.
How strongly to tilt is a setting here. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, checked_head, descend
from imu.methods.common.labels import taught, without
from imu.objectives import IGNORED, Objective, Samples, features_and_logits

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "tilt": (0.3, 1.0, 5.0),
    "sgd.learning_rate": (3e-3, 1e-2),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    tilt: float = 1.0  # of logits, per unit of the cosine
    sgd: Sgd = Sgd(learning_rate=0.003, epochs=5, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, tilt=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend the divergence from the tilted original and the loss of the retain set."""
    wanted = tilted(model, objective, forget, config.tilt)
    loss = taught(model, objective, (forget.samples, retain), [wanted, None])
    among = len(forget.samples) + len(retain)
    yield from descend(model, objective, forget, loss, config.sgd, generator, among=among)


@torch.no_grad()
def tilted(model: nn.Module, objective: Objective, forget: ForgetSet, tilt: float) -> Tensor:
    """Logits of q for each forget sample: (n, *positions, classes)."""
    features, logits = features_and_logits(model, objective, forget.samples.inputs)
    rows = F.normalize(checked_head(model, features, logits).weight, dim=1)  # (classes, d)
    targets = forget.samples.targets
    likeness = (rows @ rows.T)[targets.where(targets != IGNORED, 0)]  # (n, *positions, classes)
    wanted = logits + tilt * likeness.to(logits)
    wanted[..., list(forget.classes)] = -torch.inf
    return without(wanted, targets)
