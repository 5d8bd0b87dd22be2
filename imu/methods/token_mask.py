"""Mask the tokens of the forgotten texts: the trivial baseline of language.

A token that occurs in D_f and nowhere in D_r is neither said nor read any more: the head's row
becomes 0 and its bias −1e4, as in ``logit_mask``, and its row of the first embedding 0. Of people
these are their names, as long as the tokenizer gives them tokens of their own. All that the layers
between hold of them stays. Where no token is theirs alone the model stays the original; of images a
label is the token. Needs the retain set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from imu.methods import ForgetSet, Step
from imu.methods.common.descent import mask, watcher
from imu.models import head
from imu.objectives import IGNORED, Objective, Samples

NEEDS = frozenset({"forget", "retain"})


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Yields the original model and, where there is something to mask, the masked one."""
    watch = watcher(model, objective, forget)
    yield watch(0)
    spoken = said(forget.samples) - said(retain)
    seen = read(forget.samples) - read(retain)
    table = next((part for part in model.modules() if isinstance(part, nn.Embedding)), None)
    if spoken:
        mask(head(model), tuple(sorted(spoken)))
    if seen and table is not None:
        with torch.no_grad():
            table.weight[sorted(seen)] = 0.0
    if spoken or (seen and table is not None):
        yield watch(1)


def said(samples: Samples) -> set[int]:
    """Tokens that are predicted."""
    return set(samples.targets.unique().tolist()) - {IGNORED}


def read(samples: Samples) -> set[int]:
    """Tokens that enter; none where inputs are no whole numbers."""
    inputs = samples.inputs
    tensors = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    whole = [tensor for tensor in tensors if tensor.dtype == torch.int64]
    return {token for tensor in whole for token in tensor.unique().tolist()}
