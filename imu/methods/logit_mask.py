"""Mask the logits of the forgotten classes: the trivial baseline of class-wise unlearning.

The head's rows of the forgotten classes become 0 and their biases −1e4, so that softmax gives
these classes exactly 0 in float32. With ``depth`` they become instead such as a network has that
never saw the classes, that many logits below the mean of the others (see ``imu_deep``). Nothing
else moves: the features still tell the class.
Where no class is forgotten whole there is nothing to mask and the model stays the original.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import UNSEEN, lower, mask, watcher
from imu.models import head
from imu.objectives import Objective, features_and_logits

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    depth: float = 0.0  # logits below the mean of the others; 0: masked

    def __post_init__(self) -> None:
        check_fields(self, depth=">= 0")


VARIANTS = {"logit_mask": Config(), "logit_mask_unseen": Config(depth=UNSEEN)}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Yields the original model and, when a class is forgotten whole, the masked one."""
    watch = watcher(model, objective, forget)
    yield watch(0)
    if forget.classes:
        layer = head(model)
        if config.depth:
            features, _ = features_and_logits(model, objective, forget.samples.inputs)
            lower(layer, forget.classes, config.depth, features, features, generator)
        else:
            mask(layer, forget.classes)
        yield watch(1)
