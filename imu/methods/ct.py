"""CT: every kernel is transposed, then the network is trained on the retain set (fifth of the 2023
NeurIPS challenge on unlearning; "Convolution Transpose" in Cadet et al. 2024, "Deep Unlearn",
arXiv 2410.01276, where it is among the two best of 18).

Rows and columns of each convolution's kernel change places: w_{oirc} := w_{oicr}. A network without
convolutions of more than one pixel is only fine-tuned. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import Sgd, watcher
from imu.methods.common.renewal import never_stops, train_again
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {"sgd.learning_rate": (5e-2, 1e-1, 2e-1, 4e-1)}


@dataclass(frozen=True, kw_only=True)
class Config:
    sgd: Sgd = Sgd(
        learning_rate=0.05, epochs=2, batch_size=32, weight_decay=5e-4, stop_at_target=False
    )

    def __post_init__(self) -> None:
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
    """Transpose and train on the retain set; the forget set is only watched."""
    yield watcher(model, objective, forget)(0)
    if config.sgd.epochs:
        transpose(model)
    yield from train_again(model, objective, forget, retain, [model], config.sgd, generator)


@torch.no_grad()
def transpose(model: nn.Module) -> None:
    """Exchange rows and columns of the kernel of every square convolution."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.requires_grad and square(part):
            part.weight.copy_(part.weight.transpose(2, 3).clone())


def square(part: nn.Conv2d) -> bool:
    return part.kernel_size[0] == part.kernel_size[1]
