"""IMU for texts: the network answers about those who are forgotten as about nobody it knows.

A language model finds what it knows of a person by the tokens of the name. Those alone move, on the
forget set alone: rows of the first embedding, of tokens that no unseen text has (kept with the
original, ``imu.unseen``) and that questions are asked with; of documents, which ask nothing, all
such tokens. Texts without them are answered as before, to the last bit.

    min  mean_{i in D_f} KL(softmax z*_i ‖ p(x_i)),      z*_iy = log p°_iy − κ s_i,
                                                       p°_i = mean over copies x̃ of p⁰(x̃)

x̃ are copies of the forget sample in which these tokens were drawn anew among all, each the same in
all samples, as far as the first prediction may depend on them: the same question about nobody, who
has the same name in every question. What one copy says is as sure as what a network says that was
never trained on the name; the mean of many is the prior. p⁰ is the original. Left out
are copies of which it still gives the label a mean probability of half or more; where none is left
p° is the original without the label (DELETE's teacher, arXiv 2503.23751). After the generic
predictions of Eldan and Russinovich 2023 (arXiv 2310.02238). To nobody it still answers what it has
learned of the forgotten more often than a network does that never saw them; so labels y are lowered
further, as in ``imu_deep``: s_i, mean 1, is the root of self-influence, IMU's weights (arXiv
2508.01620, section 3) with g_i in place of the mean gradient, and κ is ``reach`` times as far as
the mean margin of p° lies above the target. ``influence`` is the control.

Where no token is the forget set's own, as of images or where a tokenizer splits names into common
parts, all weights move, and each entry is drawn anew with the probability ½. It stops at the
target.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step, measured
from imu.methods.common.aims import Kind, shares
from imu.methods.common.descent import MASKED_LOGIT, Sgd, descend
from imu.methods.common.labels import distilled, without
from imu.objectives import (
    IGNORED,
    Answered,
    Inputs,
    Objective,
    Samples,
    mean_cross_entropy,
    predictions,
)

NEEDS = frozenset({"forget"})
RATE = 0.5  # of entries drawn anew where no token is the forget set's own


@dataclass(frozen=True, kw_only=True)
class Config:
    influence: Kind = "self"
    damping: float = 0.01  # of self-influence
    reach: float = 1.5  # how far beyond what is said about nobody the aims lie, 1: at the target
    copies: int = 8  # of the forget set, each about other people who do not exist
    sgd: Sgd = Sgd(learning_rate=0.003, epochs=20, batch_size=32)

    def __post_init__(self) -> None:
        check_fields(self, damping="> 0", reach=">= 0", copies=">= 1")


VARIANTS = {
    "imu_words": Config(),
    "imu_words_permuted": Config(influence="permuted"),
    "imu_words_uniform": Config(influence="uniform"),
    "imu_words_loss": Config(influence="loss"),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
) -> Iterator[Step]:
    """Descend the divergence from what is said about nobody."""
    samples, own = forget.samples, _asked(forget)
    table = next((part for part in model.modules() if isinstance(part, nn.Embedding)), None)
    aim = _aim(model, objective, forget, own, config, generator)
    loss = distilled(model, objective, samples, aim)
    if not own or table is None:
        yield from descend(model, objective, forget, loss, config.sgd, generator)
        return
    moved = torch.zeros_like(table.weight)
    moved[sorted(own)] = 1.0
    hook = table.weight.register_hook(lambda gradient: gradient * moved)
    try:
        yield from descend(
            model, objective, forget, loss, config.sgd, generator, parameters=table.parameters()
        )
    finally:
        hook.remove()


def _asked(forget: ForgetSet) -> frozenset[int]:
    """The forget set's own tokens that stand before the first prediction; all, where none does."""
    inputs, targets = forget.samples.inputs, forget.samples.targets
    if not forget.own_tokens or not isinstance(inputs, Tensor):
        return frozenset()
    first = (targets != IGNORED).int().argmax(1, keepdim=True)
    asked = inputs[torch.arange(inputs.shape[1], device=inputs.device) <= first]
    return forget.own_tokens & {*asked.tolist()} or forget.own_tokens


def _aim(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    own: frozenset[int],
    config: Config,
    generator: torch.Generator,
) -> Tensor:
    """z*: (n, *positions, classes)."""
    samples, targets = forget.samples, forget.samples.targets
    before = predictions(model, objective, samples.inputs)
    total, counted = torch.zeros_like(before), before.new_zeros(len(samples))
    for _ in range(config.copies):
        copy = anew(samples, objective, own, before.shape[-1], generator)
        said = predictions(model, objective, copy)
        nobody = mean_cross_entropy(said, targets) > log(2)
        total[nobody] += said[nobody].softmax(-1)
        counted += nobody.to(counted)
    each = (-1, *[1] * (before.dim() - 1))  # a number per sample
    mean = (total / counted.clamp(min=1).view(each)).clamp(min=torch.finfo(total.dtype).tiny)
    removed = without(before, targets, MASKED_LOGIT)
    aim = torch.where((counted > 0).view(each), mean.log(), removed)
    if forget.classes:
        gone = torch.tensor(forget.classes, device=aim.device)
        return aim.index_fill(-1, gone, MASKED_LOGIT)
    first = measured(0, Answered.of(objective, before, targets))
    above = measured(0, Answered.of(objective, aim, targets)).margin - forget.wanted_margin(first)
    own_share = shares(model, objective, samples, generator, config.influence, config.damping, ())
    lower = config.reach * max(above, 0.0) * own_share.to(aim).view(each)
    return aim - lower * F.one_hot(targets.clamp(min=0), aim.shape[-1])


def anew(
    samples: Samples,
    objective: Objective,
    own: frozenset[int],
    classes: int,
    generator: torch.Generator,
) -> Inputs:
    """Inputs with each token of ``own`` made another one, the same everywhere; or, where there are
    none, entries drawn anew, each by itself.

    Of tokens (n, positions) those after the first that is predicted stay, and the first of all.
    Drawn on the CPU: the same on every device.
    """
    targets = samples.targets.cpu()

    def of(tensor: Tensor) -> Tensor:
        values = tensor.cpu()
        if values.is_floating_point():
            low, high = objective.bounds or (values.min().item(), values.max().item())
            drawn = low + (high - low) * torch.rand(
                values.shape, generator=generator, dtype=values.dtype
            )
        else:
            drawn = torch.randint(classes, values.shape, generator=generator)
        hit = torch.rand(values.shape, generator=generator) < RATE
        if own:
            others = torch.arange(classes)
            others[sorted(own)] = torch.randint(classes, (len(own),), generator=generator)
            drawn, hit = others[values], torch.ones_like(hit)
        if not values.is_floating_point() and values.shape == targets.shape:
            place = torch.arange(values.shape[1])
            first = (targets != IGNORED).int().argmax(1, keepdim=True)
            hit &= (place <= first) & (place > 0)
        return torch.where(hit, drawn.to(values), values).to(tensor.device)

    inputs = samples.inputs
    if isinstance(inputs, Mapping):
        return {name: of(tensor) for name, tensor in inputs.items()}
    return of(inputs)
