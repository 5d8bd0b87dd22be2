"""What a network is to say of the forget set: the original's logits with the label lowered."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import influences
from imu.methods import ForgetSet, measured
from imu.methods.common.descent import MASKED_LOGIT
from imu.objectives import Answered, Objective, Samples, answered

Kind = Literal["self", "permuted", "uniform", "loss"]


def lowered(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    logits: Tensor,
    generator: torch.Generator,
    *,
    kind: Kind,
    damping: float,
    reach: float,
    parameters: tuple[str, ...],
    owed: Tensor | None = None,
) -> Tensor:
    """z*: the original's logits with that of the label removed, or lowered by influence.

    Classes that are forgotten whole are removed. Samples' labels are lowered by κ s, with κ
    ``reach`` times as far as the mean margin has to fall, and s as in ``shares``, or ``owed`` (n,),
    divided by its mean.
    """
    targets = forget.samples.targets
    if forget.classes:
        return logits.index_fill(
            -1, torch.tensor(forget.classes, device=logits.device), MASKED_LOGIT
        )
    if owed is None:
        own = shares(model, objective, forget.samples, generator, kind, damping, parameters)
    else:
        own = owed / owed.mean()
    own = own.view(-1, *[1] * (targets.dim() - 1)).expand(targets.shape)
    now = measured(0, Answered.of(objective, logits, targets))
    # A margin falls as far as its label's logit, and the shares have the mean 1.
    kappa = reach * (now.margin - forget.wanted_margin(now))
    lower = F.one_hot(targets.clamp(min=0), logits.shape[-1]) * (kappa * own)[..., None]
    return logits - lower.to(logits)


def shares(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    generator: torch.Generator,
    kind: Kind,
    damping: float,
    parameters: tuple[str, ...],
) -> Tensor:
    """s: how much each sample's label is lowered against the others', mean 1: (n,)."""
    if kind == "uniform":
        return torch.ones(len(samples), device=samples.targets.device)
    if kind == "loss":
        found = answered(model, objective, samples).losses
    else:
        asked = influences.Config(score="self", damping=damping, parameters=parameters)
        found = influences.influence(model, objective, samples, asked)
    roots = found.clamp(min=0).sqrt()
    if kind == "permuted":
        roots = roots[torch.randperm(len(roots), generator=generator).to(roots.device)]
    return roots / roots.mean().clamp(min=torch.finfo(roots.dtype).tiny)
