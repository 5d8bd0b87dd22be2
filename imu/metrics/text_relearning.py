"""Relearning of texts: does learning half of what was forgotten bring back the other half?

A copy of the network is fine-tuned on one half of the forgotten answers about each subject, drawn
by the seed: 20 steps of Adam, 16 samples each. After every second step the probability
P(a|q)^(1/|a|) of the answers of the *other* half is taken, of 64 samples at most.

    relearn_P    its mean over those steps, in %, the larger of two attacks

which train all weights, rate 1e-3, and the rows of the first embedding alone, rate 1e-2, after
those of tokens that only forgotten texts read were made 0. The rate of all weights is for networks
128 wide at most and falls with the square of the width beyond, to what larger ones are fine-tuned
with, 5e-5 at 576. The first finds what is still read; the second new names for what lies in the
layers as it was, whatever became of the old ones. By subject, so that what is learned of a person
can lead to the rest; a subject of one sample lies in one half.

Before that, tokens whose bias in the head is more than 20 nats below the median get the median: no
step climbs out of a mask of −1e4, but whoever holds the weights need not try.

Nothing that is asked was trained on, so what comes back was there, or is what all subjects share,
which the reference learns as well: read it beside the reference's. After Lynch et al. 2024, arXiv
2402.16835, and Hu et al. 2024, arXiv 2406.13356, who bring back all from a few; halves of each
subject and the rows alone are ours. The counterpart for images is ``fine_tune_relearning``.
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
# Of all weights, and of the rows alone. On one cell of biographies they bring a retrained model to
# 24 % and 19 %, names that were masked to 27 % and 46 %, moved by ``imu_words`` to 45 % and 82 %.
RATES = {"all": 1e-3, "rows": 1e-2}
# Of the first embedding. Of 76 % the original SmolLM2, 576 wide, had 1 % left with 1e-3, 22 % with
# 1e-4, 45 % with 3e-5, means over 8 to 12 steps.
WIDTH = 128
EVERY = 2  # steps
SUPPRESSED = 20.0  # nats of a bias below the median: no training moves one as far
MEASURED = 64
ABOUT = {
    "relearn_P": About(
        "survival",
        "reference",
        "%",
        f"mean probability of half of the forgotten answers, over {STEPS} steps of fine-tuning on "
        "the other half: all weights or the rows of tokens, whichever brings back more",
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"relearn_P": (("forget", "samples", 2),)})


def attack(subject: Subject, steps: int = STEPS) -> dict[str, float]:
    """{"relearn_P": %}; nothing where it is ``unmet``.

    steps: fewer only try whether the network can be attacked; the value is then none.
    """
    if unmet(subject.outputs.asked):
        return {}
    return {"relearn_P": max(float(np.mean(course(subject, what, steps))) for what in RATES)}


def halves(subjects: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Whether a sample is learned from: every second one of each subject, in an order drawn."""
    order = draw.permutation(len(subjects))
    learned = np.zeros(len(subjects), bool)
    learned[order[np.argsort(subjects[order], kind="stable")][::2]] = True
    return learned


def course(subject: Subject, what: str, steps: int = STEPS) -> list[float]:
    """The probability in % after every second step; what: of ``RATES``, is trained."""
    from copy import deepcopy

    import torch

    from imu.metrics._passes import mean_log_probabilities
    from imu.metrics._relearning import at, fine_tuned
    from imu.metrics.answer_probability import percent

    def read(name: str) -> torch.Tensor:
        inputs = subject.samples[name].inputs
        assert isinstance(inputs, torch.Tensor)
        return inputs.unique()

    draw = np.random.default_rng(subject.outputs.seed)
    learned = halves(subject.outputs.subjects["forget"], draw)
    samples, objective = subject.samples["forget"], subject.objective
    known = at(samples, draw.permutation(np.flatnonzero(learned)))
    asked = at(samples, draw.permutation(np.flatnonzero(~learned))[:MEASURED])
    assert isinstance(asked.inputs, torch.Tensor)
    model = deepcopy(subject.model).eval().requires_grad_(True)
    _lift_mask(model)
    trained: list[torch.Tensor] = list(model.parameters())
    table = next(of.weight for of in model.modules() if isinstance(of, torch.nn.Embedding))
    rate = RATES[what]
    if what == "rows":
        trained = [table]
        theirs = read("forget")
        with torch.no_grad():
            table[theirs[~torch.isin(theirs, read("retain"))]] = 0.0
    else:
        rate *= min(1.0, WIDTH / table.shape[1]) ** 2
    values = []
    for step in fine_tuned(model, objective, known, trained, rate=rate, steps=steps):
        if step % EVERY == EVERY - 1 or step == steps - 1:
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
