"""SalUn: random labels, moving only the weights that the forget set moves most (Fan et al. 2024,
arXiv 2310.12508).

The saliency mask keeps the ``share`` of weights with the largest |∂ mean CE on D_f / ∂θ|; these
descend cross-entropy on wrong labels for D_f and true ones for D_r. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.labels import relabelled_loss
from imu.models import evaluating, trainable
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "share": (0.3, 0.5, 0.7),
    "sgd.learning_rate": (3e-3, 1e-2, 3e-2),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    share: float = 0.5  # of all weights, those that may move
    sgd: Sgd = Sgd(learning_rate=0.01, epochs=5, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, share="in (0, 1]")
        if self.sgd.weight_decay:
            raise ValueError(
                "sgd.weight_decay must be 0, for it would move weights outside the mask, "
                f"got {self.sgd.weight_decay}"
            )


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend the relabelled loss through the saliency mask."""
    parameters = list(trainable(model).values())
    masks = salient(model, objective, forget.samples, config.share)
    hooks = [
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
        for parameter, mask in zip(parameters, masks, strict=True)
    ]
    loss = relabelled_loss(model, objective, forget.samples, retain, generator)
    among = len(forget.samples) + len(retain)
    try:
        yield from descend(model, objective, forget, loss, config.sgd, generator, among=among)
    finally:
        for hook in hooks:
            hook.remove()


def salient(model: nn.Module, objective: Objective, samples: Samples, share: float) -> list[Tensor]:
    """For each parameter: 1 at weights among the ``share`` with the largest gradient, else 0."""
    parameters = list(trainable(model).values())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    with evaluating(model):
        for batch in samples.batches(512):
            loss = objective.losses(objective.logits(model, batch.inputs), batch.targets).sum()
            slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for sum_, slope in zip(total, slopes, strict=True):
                sum_ += slope
    sizes = torch.cat([slope.abs().flatten() for slope in total])
    kept = torch.zeros_like(sizes)
    kept[sizes.argsort(descending=True, stable=True)[: max(1, round(share * len(sizes)))]] = 1
    return [
        part.view_as(parameter)
        for part, parameter in zip(
            kept.split([parameter.numel() for parameter in parameters]), parameters, strict=True
        )
    ]
