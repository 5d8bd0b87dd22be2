"""RMU: steer what a layer says of the forget set in a random direction (Li et al. 2024, WMDP, arXiv
2403.03218).

Minimises  mean ‖h − c·u‖² / d  +  weight · mean ‖h − h⁰‖² / d,  the first over the forget set, the
second over as many retain samples, drawn anew for each batch. h: the output of a layer, (d,) at
every position where something is predicted, h⁰ that of the original; u: a direction drawn once,
uniformly from [0, 1]^d, of length 1. c is ``steering`` times the mean ‖h⁰‖ of the forget set (in
the paper a number that suits one network). Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.influences.parameters import chosen
from imu.methods import ForgetSet, Step
from imu.methods.common.block import last_block
from imu.methods.common.descent import Sgd, descend
from imu.models import evaluating
from imu.objectives import IGNORED, Objective, Samples, mean_over_positions

NEEDS = frozenset({"forget", "retain"})
CHUNK = 512  # samples of a pass over all


@dataclass(frozen=True, kw_only=True)
class Config:
    # Modules that are trained, the last of which is steered; none: the last block before the head.
    layers: tuple[str, ...] = ()
    steering: float = 3.0  # length of c·u, in mean lengths of h⁰
    weight: float = 1.0  # of what must stay
    sgd: Sgd = Sgd(learning_rate=0.01, epochs=20)

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not all(self.layers):
            raise ValueError(f"layers must be a tuple of names, got {self.layers!r}")
        check_fields(self, steering=">= 0", weight=">= 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Descend both terms. Raises ValueError for a name that is no module with parameters."""
    layers = config.layers or last_block(model)[:1]
    moved = chosen(model, layers).values()
    steered = model.get_submodule(layers[-1])
    said: list[Tensor] = []

    def states(part: Samples) -> Tensor:
        """h of each sample: (n, *positions, d)."""
        said.clear()
        hook = steered.register_forward_hook(lambda _, __, out: said.append(out))
        try:
            objective.logits(model, part.inputs)
        finally:
            hook.remove()
        if part.targets.dim() > 1:
            return said[-1]
        return said[-1].flatten(1)

    @torch.no_grad()
    def before(samples: Samples) -> Tensor:
        with evaluating(model):
            return torch.cat([states(part) for part in samples.batches(CHUNK)])

    def apart(part: Samples, wanted: Tensor) -> Tensor:
        distance = (states(part) - wanted).square().mean(-1)  # (n, *positions)
        return mean_over_positions(distance, part.targets).mean()

    first, kept = before(forget.samples), before(retain)
    length = first[forget.samples.targets != IGNORED].norm(dim=-1).mean()
    direction = torch.rand(first.shape[-1], generator=generator, dtype=torch.float64)
    direction = (direction / direction.norm()).to(first)
    away = config.steering * length * direction  # (d,)

    def loss(rows: Tensor) -> Tensor:
        others = torch.randint(len(retain), rows.shape, generator=generator)
        total = apart(forget.samples[rows], away)
        return total + config.weight * apart(retain[others], kept[others])

    yield from descend(model, objective, forget, loss, config.sgd, generator, parameters=moved)
