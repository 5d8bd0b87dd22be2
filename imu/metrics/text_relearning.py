"""Relearning of texts: does learning half of the forgotten subjects bring back the other half?

A copy of the network is fine-tuned, all weights, on the answers about one half of the forgotten
subjects, drawn by the seed: 20 steps of Adam with rate 1e-3, 16 samples each. After every step the
probability P(a|q)^(1/|a|) of the answers about the *other* half is taken, of 64 samples at most.

    relearn_P    its mean over the steps, in %

Before that, tokens whose bias in the head is more than 20 nats below the median get the median: no
step climbs out of a mask of −1e4, but whoever holds the weights need not try.

Nothing that is asked was trained on, so what comes back was there, or is what all subjects share,
which the reference learns as well: read it beside the reference's. After Lynch et al. 2024, arXiv
2402.16835, and Hu et al. 2024, arXiv 2406.13356, who bring back all from a few; halves by subject
are ours. The counterpart for images is ``fine_tune_relearning``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from imu.metrics import About, Subject
from imu.metrics._said import Asked, lacking

if TYPE_CHECKING:
    from torch import nn

OBJECTIVE = "language"
STEPS = 20
RATE = 1e-3  # on biographies GA comes back to 48 % from the 14 % that retrained models fall from
BATCH = 16
SUPPRESSED = 20.0  # nats of a bias below the median: no training moves one as far
MEASURED = 64
ABOUT = {
    "relearn_P": About(
        "survival",
        "reference",
        "%",
        f"mean probability of the answers about half of the forgotten subjects, over {STEPS} steps "
        "of fine-tuning on the other half",
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"relearn_P": (("forget", "subjects", 2),)})


def attack(subject: Subject, steps: int = STEPS) -> dict[str, float]:
    """{"relearn_P": %}; nothing where it is ``unmet``.

    steps: fewer only try whether the network can be attacked; the value is then none.
    """
    if unmet(subject.outputs.asked):
        return {}
    return {"relearn_P": float(np.mean(course(subject, steps)))}


def course(subject: Subject, steps: int = STEPS) -> list[float]:
    """The probability in % after each step."""
    from copy import deepcopy

    import torch

    from imu.metrics._passes import mean_log_probabilities
    from imu.metrics.answer_probability import percent
    from imu.models.common import optimizers

    draw = np.random.default_rng(subject.outputs.seed)
    names = draw.permutation(np.unique(subject.outputs.subjects["forget"]))
    trained = np.isin(subject.outputs.subjects["forget"], names[: len(names) // 2])
    samples, objective = subject.samples["forget"], subject.objective

    def rows(chosen: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(chosen).to(samples.targets.device)

    known = draw.permutation(np.flatnonzero(trained))
    asked = samples[rows(draw.permutation(np.flatnonzero(~trained))[:MEASURED])]
    assert isinstance(asked.inputs, torch.Tensor)
    model = deepcopy(subject.model).eval().requires_grad_(True)
    _lift_mask(model)
    optimizer = optimizers.adam(model.parameters(), RATE)
    values = []
    for step in range(steps):
        batch = samples[rows(np.roll(known, -step * BATCH)[:BATCH])]
        optimizer.zero_grad()
        objective.losses(objective.logits(model, batch.inputs), batch.targets).mean().backward()
        optimizer.step()
        values.append(percent(mean_log_probabilities(model, objective, asked)))
    return values


def _lift_mask(model: "nn.Module") -> None:
    """Where tokens are suppressed by the bias of a linear head, they no longer are."""
    import torch

    from imu.models import has_head, head

    if has_head(model) and (bias := head(model).bias) is not None:
        with torch.no_grad():
            middle = bias.median()
            bias[bias < middle - SUPPRESSED] = middle
