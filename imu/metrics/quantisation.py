"""4-bit quantisation: does coarser storage undo the small changes that unlearning made?

Every row w of every matrix of weights, but those of embeddings, becomes

    ŵ = s · round(w / s),    s = max|w| / 7,

15 levels, in a copy of the network; P_4bit is then P(a|q)^(1/|a|) of ``answer_probability`` on the
forget set. Source: Zhang et al. 2025, arXiv 2410.16454, section 4, round to nearest; there the
levels are of bitsandbytes, by blocks.
"""

from collections.abc import Mapping

from imu.metrics import About, Subject
from imu.metrics._said import Asked, lacking

OBJECTIVE = "language"
LEVELS = 7  # on either side of 0
ABOUT = {
    "P_4bit": About(
        "survival", "reference", "%", "as P_forget, after the weights were rounded to 4 bits"
    )
}


def unmet(asked: Mapping[str, Asked]) -> dict[str, str]:
    """Name -> why it cannot be measured."""
    return lacking(asked, {"P_4bit": (("forget", "samples", 1),)})


def attack(subject: Subject) -> dict[str, float]:
    """{"P_4bit": %}; nothing where it is ``unmet``."""
    from copy import deepcopy

    import torch
    from torch import nn

    from imu.metrics._passes import mean_log_probabilities
    from imu.metrics.answer_probability import percent

    if unmet(subject.outputs.asked):
        return {}
    model = deepcopy(subject.model)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2 and id(weight) not in tables:
                step = weight.abs().amax(1, keepdim=True) / LEVELS  # (rows, 1)
                weight.copy_((weight / step.where(step > 0, 1)).round() * step)
    found = mean_log_probabilities(model, subject.objective, subject.samples["forget"])
    return {"P_4bit": percent(found)}
