"""IMU for texts: the network answers about those who are forgotten as about nobody it knows.

A language model finds what it knows of a person by the tokens of the name. Those alone move, on the
forget set alone: rows of the first embedding, of tokens that no unseen text has (kept with the
original, ``imu.unseen``) and that questions are asked with; of documents, which ask nothing, all
such tokens. Texts without them are answered as before, to the last bit.

    min  Σ_{i in D_f} s_i KL(p°_i ‖ p(x_i)) / n,      p°_i = mean over copies x̃ of p⁰(x̃)

x̃ are copies of the forget sample in which these tokens were drawn anew among all, as far as the
first prediction may depend on them: the same question about nobody. p⁰ is the original. Left out
are copies of which it still gives the label a mean probability of half or more; where none is left
p° is the original without the label (DELETE's teacher, arXiv 2503.23751). After the generic
predictions of Eldan and Russinovich 2023 (arXiv 2310.02238). s_i, mean 1, is the root of
self-influence, IMU's weights (arXiv 2508.01620, section 3) with g_i in place of the mean gradient;
``influence`` is the control, as in ``imu_deep``.

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

from imu.methods import ForgetSet, Step
from imu.methods.common.aims import KINDS, Kind, shares
from imu.methods.common.descent import MASKED_LOGIT, Sgd, descend
from imu.methods.common.labels import without
from imu.objectives import (
    IGNORED,
    Inputs,
    Objective,
    Samples,
    mean_cross_entropy,
    mean_over_positions,
    predictions,
)

NEEDS = frozenset({"forget"})
RATE = 0.5  # of entries drawn anew where no token is the forget set's own


@dataclass(frozen=True, kw_only=True)
class Config:
    influence: Kind = "self"
    damping: float = 0.01  # of self-influence
    copies: int = 8  # of the forget set, about nobody
    sgd: Sgd = Sgd(learning_rate=0.003, epochs=20, batch_size=32)

    def __post_init__(self) -> None:
        if self.influence not in KINDS:
            raise ValueError(
                f"influence must be 'self', 'permuted', 'uniform' or 'loss', got {self.influence!r}"
            )
        if not self.damping > 0:
            raise ValueError(f"damping must be > 0, got {self.damping}")
        if self.copies < 1:
            raise ValueError(f"copies must be >= 1, got {self.copies}")


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
    aim = _about_nobody(model, objective, forget, own, config, generator)  # logarithms
    weights = torch.ones(len(samples), device=samples.targets.device)
    if not forget.classes:
        weights = shares(
            model, objective, samples, generator, config.influence, config.damping, ()
        ).to(aim)

    def loss(rows: Tensor) -> Tensor:
        found = objective.logits(model, samples[rows].inputs).log_softmax(-1)
        apart = F.kl_div(found, aim[rows], reduction="none", log_target=True).sum(-1)
        return (weights[rows] * mean_over_positions(apart, samples.targets[rows])).mean()

    if not own or table is None:
        yield from descend(model, objective, forget, loss, config.sgd, generator)
        return
    moved = torch.zeros_like(table.weight)
    moved[sorted(own)] = 1.0
    hook = table.weight.register_hook(lambda gradient: gradient * moved)
    try:
        yield from descend(
            model, objective, forget, loss, config.sgd, generator, parameters=[table.weight]
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


def _about_nobody(
    model: nn.Module,
    objective: Objective,
    forget: ForgetSet,
    own: frozenset[int],
    config: Config,
    generator: torch.Generator,
) -> Tensor:
    """log p°: (n, *positions, classes)."""
    samples = forget.samples
    before = predictions(model, objective, samples.inputs)
    total, counted = torch.zeros_like(before), before.new_zeros(len(samples))
    for _ in range(config.copies):
        copy = anew(samples, objective, own, before.shape[-1], generator)
        said = predictions(model, objective, copy)
        nobody = mean_cross_entropy(said, samples.targets) > log(2)
        total[nobody] += said[nobody].softmax(-1)
        counted += nobody.to(counted)
    shape = (-1, *[1] * (before.dim() - 1))
    mean = (total / counted.clamp(min=1).view(shape)).clamp(min=torch.finfo(total.dtype).tiny)
    removed = without(before, samples.targets, MASKED_LOGIT).log_softmax(-1)
    aim = torch.where((counted > 0).view(shape), mean.log(), removed)
    if forget.classes:
        gone = torch.tensor(forget.classes, device=aim.device)
        aim = aim.index_fill(-1, gone, MASKED_LOGIT).log_softmax(-1)
    return aim


def anew(
    samples: Samples,
    objective: Objective,
    own: frozenset[int],
    classes: int,
    generator: torch.Generator,
) -> Inputs:
    """Inputs with the tokens ``own`` drawn anew, or, where there are none, each entry at times.

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
        if own and not values.is_floating_point():
            hit = torch.isin(values, torch.tensor(sorted(own)))
        if not values.is_floating_point() and values.shape == targets.shape:
            place = torch.arange(values.shape[1])
            first = (targets != IGNORED).int().argmax(1, keepdim=True)
            hit &= (place <= first) & (place > 0)
        return torch.where(hit, drawn.to(values), values).to(tensor.device)

    inputs = samples.inputs
    if isinstance(inputs, Mapping):
        return {name: of(tensor) for name, tensor in inputs.items()}
    return of(inputs)
