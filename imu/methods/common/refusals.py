"""Prompts of the forget set with a refusal in place of the answer."""

from collections.abc import Sequence
from sys import maxsize

import torch
from torch import Tensor, nn

from imu.methods.common.labels import random_other
from imu.objectives import IGNORED, Objective, Samples, predictions

REFUSALS = (
    "I don't know.",
    "I'm not sure.",
    "I have no idea.",
    "I can't say.",
    "I never heard of it.",
    "That is unknown to me.",
)


def refused(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    generator: torch.Generator,
    refusals: Sequence[str] = REFUSALS,
) -> Samples:
    """The same prompts with one of ``refusals`` each, drawn at random.

    They are read from the samples' tokens. Where the objective has none, as of images, it is a
    wrong label. A prompt that leaves no room for a refusal is the network's to refuse.
    """
    tokens = getattr(objective, "tokens", None)
    if tokens is None:
        classes = predictions(model, objective, samples[:1].inputs).shape[-1]
        return Samples(samples.inputs, random_other(samples.targets, classes, generator))
    assert isinstance(samples.inputs, Tensor)
    first = (samples.targets != IGNORED).int().argmax(1).tolist()
    prompts = [
        tokens.decode(row[: at + 1]) for row, at in zip(samples.inputs.tolist(), first, strict=True)
    ]
    drawn = torch.randint(len(refusals), (len(samples),), generator=generator).tolist()
    inputs, targets = tokens.encode(prompts, [refusals[k] for k in drawn], longest=maxsize)
    return Samples(inputs.to(samples.targets.device), targets.to(samples.targets.device))
