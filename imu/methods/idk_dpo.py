"""IdkDPO: prefer "I don't know" to the true answer (TOFU, Maini et al. 2024, arXiv 2401.06121).

Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) with a refusal w in place
of the better answer and the true one, y, in place of the worse:

    −(2/β) mean log σ( β (log p(w|x)/p⁰(w|x) − log p(y|x)/p⁰(y|x)) )

p⁰ is the original's, log p the mean over positions, as in ``npo``, which is this without w. A
refusal is drawn for each sample; TOFU has a hundred of them. Of images, which have no text, w is a
wrong label drawn at random.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, descend
from imu.methods.common.refusals import refused
from imu.objectives import Objective, Samples, answered, mean_cross_entropy

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    beta: float = 0.1  # inverse temperature of the preference
    sgd: Sgd = Sgd(learning_rate=0.001, epochs=50)

    def __post_init__(self) -> None:
        check_fields(self, beta="> 0")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the loss. A prompt that leaves no room for a refusal is the network's to refuse."""
    pairs = (refused(model, objective, forget.samples, generator), forget.samples)
    before = [answered(model, objective, samples).losses for samples in pairs]

    def log_ratio(rows: Tensor, samples: Samples, then: Tensor) -> Tensor:
        batch = samples[rows]
        now = mean_cross_entropy(objective.logits(model, batch.inputs), batch.targets)
        return then[rows] - now  # log(p / p⁰)

    def loss(rows: Tensor) -> Tensor:
        better, worse = (log_ratio(rows, *of) for of in zip(pairs, before, strict=True))
        return -2 / config.beta * F.logsigmoid(config.beta * (better - worse)).mean()

    yield from descend(model, objective, forget, loss, config.sgd, generator)
