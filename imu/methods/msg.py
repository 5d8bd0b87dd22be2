"""MSG: the convolutions' weights with the smallest gradients begin anew (second of the 2023 NeurIPS
challenge on unlearning; "Masked Small Gradients" in Cadet et al. 2024, "Deep Unlearn",
arXiv 2410.01276, where it is among the two best of 18).

    g = ∂/∂θ (Σ_{as many retain samples} CE − Σ_{D_f} CE)

In each convolution (each layer before the head, where there is none) the ``share`` of weights with
the smallest |g| are drawn anew (He et al. 2015, arXiv 1502.01852); then the network is trained on
the retain set, the other weights of these layers with a tenth of their gradient. Those with large
|g| are taken for what the retain set needs and the forget set does not. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, watcher
from imu.methods.common.renewal import never_stops, train_again
from imu.models import evaluating, head
from imu.objectives import Objective, Samples

SLOWED = 0.1  # factor of the gradient of weights that stay
NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "share": (0.1, 0.3, 0.6),
    "sgd.learning_rate": (3e-2, 1e-1, 2e-1),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    share: float = 0.3  # of each convolution's weights that begin anew
    sgd: Sgd = Sgd(
        learning_rate=0.2, epochs=2, batch_size=32, weight_decay=5e-4, stop_at_target=False
    )

    def __post_init__(self) -> None:
        check_fields(self, share="in [0, 1]")
        never_stops(self.sgd)


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Draw small-gradient weights anew and train on the retain set."""
    yield watcher(model, objective, forget)(0)
    if not config.sgd.epochs:
        return
    weights = candidates(model)
    fresh = renewed(model, objective, forget.samples, retain, weights, config.share, generator)
    hooks = [
        weight.register_hook(lambda slope, new=new: torch.where(new, slope, SLOWED * slope))
        for weight, new in zip(weights, fresh, strict=True)
    ]
    try:
        yield from train_again(model, objective, forget, retain, [model], config.sgd, generator)
    finally:
        for hook in hooks:
            hook.remove()


def candidates(model: nn.Module) -> list[Tensor]:
    """Weights of the convolutions, or of the layers before the head where there are none."""
    parts, last = list(model.modules()), head(model)
    convolutions = [part.weight for part in parts if isinstance(part, nn.Conv2d)]
    others = [p.weight for p in parts if isinstance(p, nn.Linear) and p is not last]
    return [weight for weight in dict.fromkeys(convolutions or others) if weight.requires_grad]


def renewed(
    model: nn.Module,
    objective: Objective,
    forget: Samples,
    retain: Samples,
    weights: list[Tensor],
    share: float,
    generator: torch.Generator,
) -> list[Tensor]:
    """Draw the weights with small gradients anew; which they were, bool in the shape of each."""
    like = retain[torch.randperm(len(retain), generator=generator)[: len(forget)]]
    total = [torch.zeros_like(weight) for weight in weights]
    if not weights:
        return []
    with evaluating(model):
        for sign, samples in ((1, like), (-1, forget)):
            for batch in samples.batches(512):
                loss = objective.losses(objective.logits(model, batch.inputs), batch.targets).sum()
                for sum_, slope in zip(total, torch.autograd.grad(loss, weights), strict=True):
                    sum_ += sign * slope
    chosen = []
    with torch.no_grad():
        for weight, slope in zip(weights, total, strict=True):
            new = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
            smallest = slope.abs().flatten().argsort(stable=True)
            new[smallest[: round(share * weight.numel())]] = True
            new = new.view_as(weight)
            drawn = torch.empty(weight.shape, dtype=weight.dtype)
            nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=generator)
            weight.copy_(torch.where(new, drawn.to(weight.device), weight))
            chosen.append(new)
    return chosen
