"""SCRUB: a student that obeys its teacher on the retain set and disobeys on the forget set
(Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning", arXiv 2302.09880).

Teacher: the original. In turn, for ``epochs`` epochs: an epoch over D_f that ascends
KL(teacher ‖ student), in the first ``max_epochs`` only, and one over D_r that descends
alpha KL(teacher ‖ student) + gamma CE. Both KL at temperature ``temperature``, times its square.
Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, update, watcher
from imu.models import trainable
from imu.objectives import Objective, Samples, mean_over_positions, predictions

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "max_epochs": (3, 5),
    "sgd.learning_rate": (3e-4, 1e-3, 3e-3),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    alpha: float = 0.5  # weight of the retain divergence
    gamma: float = 1.0  # weight of the retain cross-entropy
    temperature: float = 4.0  # of both softmaxes
    max_epochs: int = 5  # epochs with a forget half
    sgd: Sgd = Sgd(learning_rate=0.001, epochs=5, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, alpha=">= 0", gamma=">= 0", max_epochs=">= 0", temperature="> 0")
        if self.sgd.stop_at_target:
            raise ValueError(
                "sgd.stop_at_target must be false: the retain half repairs what comes before it"
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
    """Alternate both halves with one optimiser; yields after each half."""
    sets = {"forget": forget.samples, "retain": retain}
    teacher = {name: predictions(model, objective, data.inputs) for name, data in sets.items()}
    trained = list(trainable(model).values())
    optimizer = config.sgd.optimizer(trained)
    watch = watcher(model, objective, forget)

    def loss(name: str, rows: Tensor) -> Tensor:
        batch = sets[name][rows]
        logits = objective.logits(model, batch.inputs)
        distance = divergence(teacher[name][rows], logits, batch.targets, config.temperature)
        if name == "forget":
            return -distance.mean()
        losses = objective.losses(logits, batch.targets)
        return config.alpha * distance.mean() + config.gamma * losses.mean()

    updates = 0
    yield watch(updates)
    for epoch in range(config.sgd.epochs):
        for name in ("forget", "retain") if epoch < config.max_epochs else ("retain",):
            order = torch.randperm(len(sets[name]), generator=generator)
            for rows in order.split(config.sgd.batch_size):
                updates += 1
                update(model, optimizer, trained, partial(loss, name, rows), updates)
            yield watch(updates)


def divergence(teacher: Tensor, student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(teacher / T) ‖ softmax(student / T)) of each sample: (n,)."""
    kl = F.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)  # (n, *positions)
    return temperature**2 * mean_over_positions(kl, targets)
