"""IMU in this project's variant: one rule for every network.

Influence weights as in arXiv 2508.01620, section 3; what differs from the paper, and why:
- The network is frozen, BatchNorm included, and the head's input is computed once: only the head
  moves, so an update costs one matrix product.
- The ascended loss is the unlikelihood log(1 − p_y) (Welleck et al. 2020, arXiv 1908.04319) in
  place of cross-entropy. Its gradient is full while the sample is remembered (p_y → 1) and
  vanishes when it is forgotten; that of cross-entropy does the opposite and explodes.
- Class-wise, only the head's rows of the forgotten classes move.
- Steps are measured in logits, so that one setting serves every feature scale: the step size is
  ``step / mean(|h|² + 1)``.
- It stops at its target: accuracy 0 for a class, the margin of unseen data for samples.

``weights`` puts the claim of the method to the test. ``permuted`` gives the same weights to other
samples, drawn at random; ``uniform`` gives every sample the same. If these do as well, influence
is not what helps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import cached_head, watcher
from imu.methods.common.weights import weights_by
from imu.objectives import IGNORED, Objective, position_weights

NEEDS = frozenset({"forget", "influence"})
SEARCH = {"step": (0.05, 0.1, 0.25, 0.5, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Config:
    weights: Literal["influence", "permuted", "uniform"] = "influence"
    step: float = 0.25  # logits: how far one update lowers a fully remembered label's logit
    max_steps: int = 500  # updates at most, whether or not the target is reached

    def __post_init__(self) -> None:
        check_fields(self, step="> 0", max_steps=">= 0")


VARIANTS = {
    "imu": Config(),
    "imu_permuted": Config(weights="permuted", step=0.1),
    "imu_uniform": Config(weights="uniform", step=0.1),
}


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    influence: Tensor,
) -> Iterator[Step]:
    """Ascend Σ w_i log(1 − p_i) / Σ w_i by full-batch gradient steps on the head.

    influence: (n,), the weights w_i >= 0 of ``imu.influences.ascent_weights``; at least one > 0.
    A sample's weight is shared among its positions. It ends at the target, or after
    ``max_steps`` updates.
    """
    influence = weights_by(config.weights, influence, generator)
    layer, inputs, forget = cached_head(model, objective, forget)
    targets = forget.samples.targets
    predicted = targets != IGNORED
    weights = position_weights(influence.to(inputs), targets)[predicted]  # (m,)
    features, labels = inputs[predicted], targets[predicted]  # (m, d), (m,)
    shares = (weights / weights.sum())[:, None]  # (m, 1), sum 1
    rate = config.step / (features.square().sum(1) + 1).mean()
    moving = features.new_zeros(layer.out_features, 1)  # (classes, 1)
    moving[list(forget.classes) or slice(None)] = 1
    watch = watcher(model, objective, forget, lambda: layer(inputs))
    first = now = watch(0)
    yield now
    for step in range(1, config.max_steps + 1):
        if forget.reached(first, now):
            return
        with torch.no_grad():
            gradient = unlikelihood_gradient(layer(features), labels) * shares  # (m, classes)
            layer.weight.add_(rate * moving * (gradient.T @ features))
            if layer.bias is not None:
                layer.bias.add_(rate * moving[:, 0] * gradient.sum(0))
        now = watch(step)
        yield now


def unlikelihood_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of log(1 − p_y) with respect to the logits: (n, classes).

    −p_y at the label and p_y p_k / (1 − p_y) elsewhere. The quotient p_k / (1 − p_y) is the
    softmax over the other classes, which stays finite when p_y rounds to 1.
    """
    label = F.one_hot(labels, logits.shape[1]).bool()  # (n, classes)
    remembered = logits.softmax(1)[label][:, None]  # (n, 1)
    others = logits.masked_fill(label, -torch.inf).softmax(1)  # (n, classes), 0 at the label
    return remembered * (others - label.to(others))
