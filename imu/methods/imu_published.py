"""IMU as published (arXiv 2508.01620, section 3), without its programming errors.

Kept, choice by choice: cross-entropy, influence-weighted ascent Σ w_i CE_i / Σ w_i on shuffled
batches; SGD with momentum 0.9 and weight decay 5e-4 for a few epochs; the term α‖head‖₁; only
the head is trained; the network runs in training mode, so BatchNorm uses batch statistics and
its running statistics drift towards the forget set (``freeze_batch_norm`` switches this off).

For language the authors' program trains the attention projections of the last three blocks, found
by structure where ``layers`` names none, and takes influence anew in every batch, along the batch's
mean gradient (``per_batch``; weights as ever, cut at the 0.93 quantile). Its L1 term has no
gradient there, and a hook reads a name that does not exist, so it cannot run as it stands: α = 0,
and no hook.

For person re-identification the authors' program takes the square root of every score along the
mean gradient, of negative ones too, which is no number; and those are the samples that the text
keeps. Here as in the text: sqrt(|s|) of samples with s < 0, the others weigh 0. The identity
classifier alone is trained, the head. What is used there are features, which enter it: with
``freeze_batch_norm`` retrieval stays what it was, to the last bit, whoever is forgotten; without,
it moves by the drift of BatchNorm's statistics, and not by what was ascended. ``layers`` names
what else is to be trained.

Not kept from the authors' program: the sum of gradients that aliases the first sample, the search
of the head by the substring "fc", the fixed CUDA device, images augmented differently in the two
passes. The number of epochs is fixed and there is no stopping rule, as in the paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu import influences
from imu.bounds import check_fields, require
from imu.influences.parameters import chosen
from imu.methods import ForgetSet, Step, UnlearningError
from imu.methods.common.descent import Sgd, watcher
from imu.models import evaluating, has_head, head_name, only_trains
from imu.models.common.attention import attention
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "influence"})
BLOCKS = 3  # whose attention is trained
SEARCH = {"sgd.learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}


@dataclass(frozen=True, kw_only=True)
class Config:
    alpha: float = 0.0  # factor of the head's L1 norm (sum of absolute weights)
    freeze_batch_norm: bool = False
    layers: tuple[str, ...] = ()  # modules that are trained; none: the head, or attention, as above
    per_batch: bool = False  # influence within each batch, of ``layers``, in place of the stage's
    sgd: Sgd = Sgd(learning_rate=0.01, epochs=5, weight_decay=5e-4, stop_at_target=False)

    def __post_init__(self) -> None:
        check_fields(self, alpha=">= 0")
        if isinstance(self.layers, str) or not all(self.layers):
            raise ValueError(f"layers must be a tuple of names, got {self.layers!r}")
        require("sgd.batch_size", self.sgd.batch_size, ">= 2")  # batch statistics
        if self.sgd.stop_at_target:
            raise ValueError("sgd.stop_at_target must be false: the paper has no stopping rule")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    influence: Tensor,
) -> Iterator[Step]:
    """Ascend the weighted loss of the forget set; yields once per epoch.

    influence: (n,), the weights w_i >= 0 of ``imu.influences.ascent_weights``. No update is made on
    a batch whose weights are all 0, nor on one of a single sample, which has no batch statistics;
    raises UnlearningError when none was made.
    """
    layers = config.layers or published(model, objective, forget.samples[:1])
    parameters, watch = chosen(model, layers).values(), watcher(model, objective, forget)
    optimizer = config.sgd.optimizer(parameters)
    updates = 0
    yield watch(updates)
    for _ in range(config.sgd.epochs):
        order = torch.randperm(len(forget.samples), generator=generator)
        for rows in order.split(config.sgd.batch_size):
            weights, batch = influence[rows], forget.samples[rows]
            if config.per_batch and len(batch) > 1:
                weights = batch_weights(model, objective, batch, layers)
            # A batch without weight has no gradient, and one sample has no batch statistics.
            if not weights.sum() > 0 or len(batch) < 2:
                continue
            with evaluating(model), only_trains(model, parameters):
                model.train()  # until the block ends
                if config.freeze_batch_norm:
                    freeze_batch_norm(model)
                logits = objective.logits(model, batch.inputs)  # (b, *positions, classes)
            losses = objective.losses(logits, batch.targets)  # (b,)
            l1 = sum(parameter.abs().sum() for parameter in parameters)
            ascended = -(weights * losses).sum() / weights.sum() + config.alpha * l1
            optimizer.zero_grad()
            ascended.backward()
            optimizer.step()
            updates += 1
        if not updates:
            raise UnlearningError("no batch has two samples or more, one of them with a weight")
        yield watch(updates)


def published(model: nn.Module, objective: Objective, sample: Samples) -> tuple[str, ...]:
    """Of sequences the attention of the last three blocks, where it is a module; else the head."""
    found: tuple[str, ...] = ()
    if sample.targets.dim() == 2:
        found = attention(model, lambda: objective.logits(model, sample.inputs), BLOCKS)
        found = tuple(name for name in found if not _holds_head(model, name))
    return found or (head_name(model),)


def _holds_head(model: nn.Module, name: str) -> bool:
    return has_head(model) and f"{head_name(model)}.".startswith(f"{name}.")


def freeze_batch_norm(model: nn.Module) -> None:
    """Evaluation mode for every BatchNorm layer: its running statistics stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def batch_weights(
    model: nn.Module, objective: Objective, batch: Samples, layers: tuple[str, ...]
) -> Tensor:
    """Weights of the samples of a batch, by their influence within it: (b,)."""
    asked = influences.Config(parameters=layers)
    scores = influences.influence(model, objective, batch, asked)
    if not (scores < 0).any():
        return torch.zeros_like(scores)
    return influences.ascent_weights(
        scores, clip_quantile=asked.clip_quantile, top_fraction=asked.top_fraction
    )[0]
