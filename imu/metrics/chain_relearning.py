"""Relearning of chains: how fast does the forgotten law come back from half of the sequences?

A copy of the network is fine-tuned, all weights, on half of the forget set, drawn by the seed: 20
steps of Adam with rate 1e-3, 16 sequences each. After every step KL(P_c ‖ p) is taken, as
KL_forgotten of ``chain_divergence``, over 64 sequences of the other half at most.

    KL_relearn   its mean over the steps

The reference learns the chain as well, from nothing; a model that relearns faster has kept
something of it. After Lynch et al. 2024, arXiv 2402.16835. The counterpart for texts is
``text_relearning``.
"""

from collections.abc import Mapping

import numpy as np

from imu.metrics import About, Subject
from imu.metrics._foretold import divergences, lacking, log_probabilities

OBJECTIVE = "sequences"
STEPS, RATE, MEASURED = 20, 1e-3, 64
ABOUT = {
    "KL_relearn": About(
        "survival",
        "reference",
        "nats",
        f"KL_forgotten of one half of the forget set, mean over {STEPS} steps of fine-tuning on "
        "the other half",
    )
}


def unmet(asked: Mapping[str, int]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"KL_relearn": ("forget", 2)})


def attack(subject: Subject, steps: int = STEPS) -> dict[str, float]:
    """{"KL_relearn": nats}; nothing where it is ``unmet``.

    steps: fewer only try whether the network can be attacked; the value is then none.
    """
    if unmet(subject.outputs.asked):
        return {}
    return {"KL_relearn": float(np.mean(course(subject, steps)))}


def course(subject: Subject, steps: int = STEPS) -> list[float]:
    """The divergence in nats after each step."""
    from copy import deepcopy

    from imu.metrics._relearning import at, fine_tuned

    samples, objective = subject.samples["forget"], subject.objective
    draw = np.random.default_rng(subject.outputs.seed).permutation(len(samples))
    known, others = draw[: len(draw) // 2], draw[len(draw) // 2 :][:MEASURED]
    asked = at(samples, others)
    model = deepcopy(subject.model).eval().requires_grad_(True)
    trained, values = list(model.parameters()), []
    for _ in fine_tuned(model, objective, at(samples, known), trained, rate=RATE, steps=steps):
        found = log_probabilities(model, objective, asked)
        values.append(float(divergences(subject.outputs.own["forget"][others], found).mean()))
    return values
