"""IMU through the whole network, held in place by inputs that are not the forgotten ones.

What a language model remembers of a person lies in all its layers, so all weights move, on the
forget set alone:

    min  mean_{i in D_f} KL(softmax z*_i ‖ p(x_i))  +  keeping · mean KL(p⁰(x̃) ‖ p(x̃))

z* are the aims of ``imu_deep``: the original's logits, the label lowered by what the network owes
to having been trained on the sample, the root of its self-influence. x̃ are forget samples in which
each entry that the prediction may depend on was drawn anew with the probability ``rate``, a token
among all, another number within ``Objective.bounds``: names that were others', or nobody's. What
the original says of them, ⁰, is kept. Left out are those of which it still gives the label a mean
probability of half or more, the forgotten ones in other words, and copies that came out as they
were: of documents, which have no question to be scrambled, nothing is held in place. After the
distillation without data of Yin et al. 2020 (DeepInversion, arXiv 1912.08795), with noise in place
of synthesis.

It stops at the target. ``influence`` is the control, as in ``imu_deep``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.aims import Kind, lowered
from imu.methods.common.descent import Sgd, descend
from imu.objectives import (
    IGNORED,
    Objective,
    Samples,
    mean_cross_entropy,
    mean_over_positions,
    predictions,
)

NEEDS = frozenset({"forget"})


@dataclass(frozen=True, kw_only=True)
class Config:
    influence: Kind = "self"
    damping: float = 0.01  # of self-influence
    reach: float = 1.0  # how far the aims lie, 1: at the target
    rate: float = 0.4  # of the entries of an input, those that are drawn anew
    copies: int = 8  # of the forget set, scrambled
    keeping: float = 1.0  # weight of what they must still be answered
    sgd: Sgd = Sgd(learning_rate=0.03, epochs=6, batch_size=16)

    def __post_init__(self) -> None:
        check_fields(self, damping="> 0", reach="> 0", rate="in (0, 1]")
        check_fields(self, copies=">= 1", keeping=">= 0")


VARIANTS = {
    "imu_wide": Config(),
    "imu_wide_permuted": Config(influence="permuted"),
    "imu_wide_uniform": Config(influence="uniform"),
    "imu_wide_loss": Config(influence="loss"),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend both divergences; twice as many scrambled samples as forgotten ones in a batch."""
    samples = forget.samples
    before = predictions(model, objective, samples.inputs)
    aim = lowered(
        model,
        objective,
        forget,
        before,
        generator,
        kind=config.influence,
        damping=config.damping,
        reach=config.reach,
        parameters=(),
    ).log_softmax(-1)
    kept = others = None
    if config.keeping:
        kept = scrambled(samples, objective, before.shape[-1], config, generator)
        answers = predictions(model, objective, kept.inputs)
        other = mean_cross_entropy(answers, kept.targets) > log(2)
        rows = (other & _changed(kept, samples)).nonzero()[:, 0]
        kept, others = kept[rows], answers[rows].log_softmax(-1)

    def apart(part: Samples, wanted: Tensor) -> Tensor:
        found = objective.logits(model, part.inputs).log_softmax(-1)
        divergence = F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
        return mean_over_positions(divergence, part.targets).mean()

    def loss(rows: Tensor) -> Tensor:
        total = apart(samples[rows], aim[rows])
        if kept is not None and others is not None and len(kept):
            near = torch.randint(len(kept), (2 * len(rows),), generator=generator)
            total = total + config.keeping * apart(kept[near], others[near])
        return total

    yield from descend(model, objective, forget, loss, config.sgd, generator)


def _changed(copies: Samples, samples: Samples) -> Tensor:
    """Which copies differ from what they were made of: (copies · n,)."""
    found = torch.zeros(len(copies), dtype=torch.bool, device=samples.targets.device)
    pairs = (
        [(copies.inputs[name], samples.inputs[name]) for name in samples.inputs]
        if isinstance(copies.inputs, Mapping) and isinstance(samples.inputs, Mapping)
        else [(copies.inputs, samples.inputs)]
    )
    for copy, of in pairs:
        assert isinstance(copy, Tensor)
        assert isinstance(of, Tensor)
        same = copy == of.repeat(len(copy) // len(of), *[1] * (of.dim() - 1))
        found |= ~same.flatten(1).all(1).to(found.device)
    return found


def scrambled(
    samples: Samples,
    objective: Objective,
    classes: int,
    config: Config,
    generator: torch.Generator,
) -> Samples:
    """Copies of the samples with entries drawn anew, drawn on the CPU: the same on every device.

    Of tokens (n, positions) those after the first that is predicted stay, and the first of all.
    """

    def anew(values: Tensor) -> Tensor:
        hit = torch.rand(values.shape, generator=generator) < config.rate
        if values.is_floating_point():
            low, high = objective.bounds or (values.min().item(), values.max().item())
            drawn = low + (high - low) * torch.rand(values.shape, generator=generator)
        else:
            drawn = torch.randint(classes, values.shape, generator=generator)
            if values.shape == targets.shape:
                place = torch.arange(values.shape[1])
                first = (targets.cpu() != IGNORED).int().argmax(1, keepdim=True)
                hit &= (place <= first) & (place > 0)
        return torch.where(hit.to(values.device), drawn.to(values), values)

    targets = samples.targets.repeat(config.copies, *[1] * (samples.targets.dim() - 1))

    def all_of(tensor: Tensor) -> Tensor:
        return anew(tensor.repeat(config.copies, *[1] * (tensor.dim() - 1)))

    inputs = samples.inputs
    if isinstance(inputs, Mapping):
        return Samples({name: all_of(tensor) for name, tensor in inputs.items()}, targets)
    return Samples(all_of(inputs), targets)
