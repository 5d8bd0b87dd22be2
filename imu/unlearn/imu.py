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
- It stops at the target accuracy: 0 for a class, the accuracy on unseen data for samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.models import features_and_logits, head
from imu.unlearn import ForgetSet, Step, measured

NEEDS = frozenset({"forget", "influence"})


@dataclass(frozen=True, kw_only=True)
class Config:
    step: float = 0.5  # logits: how far one update lowers a fully remembered label's logit
    max_steps: int = 500  # updates at most; reaching it before the target is an error

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step must be > 0, got {self.step}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must be >= 0, got {self.max_steps}")


def unlearn(
    model: nn.Module,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    influence: Tensor,
) -> Iterator[Step]:
    """Ascend Σ w_i log(1 − p_i) / Σ w_i by full-batch gradient steps on the head.

    influence: (n,), the weights w_i >= 0 of ``imu.influence.ascent_weights``; at least one > 0.
    """
    if not influence.sum() > 0:
        raise ValueError("the influence weights are all 0: there is nothing to ascend")
    features, logits = features_and_logits(model, forget.images)  # (n, d), (n, classes)
    layer = head(model)
    shares = (influence / influence.sum()).to(features)[:, None]  # (n, 1), sum 1
    rate = config.step / (features.square().sum(1) + 1).mean()
    moving = logits.new_zeros(logits.shape[1], 1)  # (classes, 1)
    moving[list(forget.classes) or slice(None)] = 1
    for step in range(config.max_steps + 1):
        now = measured(step, logits, forget.labels)
        yield now
        if now.accuracy <= forget.target_accuracy:
            return
        if step == config.max_steps:
            break
        gradient = unlikelihood_gradient(logits, forget.labels) * shares  # (n, classes)
        with torch.no_grad():
            layer.weight.add_(rate * moving * (gradient.T @ features))
            if layer.bias is not None:
                layer.bias.add_(rate * moving[:, 0] * gradient.sum(0))
            logits = layer(features)
    if config.max_steps:
        raise RuntimeError(
            f"imu: forget accuracy is {now.accuracy:.2f} % after max_steps = {config.max_steps}, "
            f"above the target of {forget.target_accuracy:.2f} %"
        )


def unlikelihood_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of log(1 − p_y) with respect to the logits: (n, classes).

    −p_y at the label and p_y p_k / (1 − p_y) elsewhere. The quotient p_k / (1 − p_y) is the
    softmax over the other classes, which stays finite when p_y rounds to 1.
    """
    label = F.one_hot(labels, logits.shape[1]).bool()  # (n, classes)
    remembered = logits.softmax(1)[label][:, None]  # (n, 1)
    others = logits.masked_fill(label, -torch.inf).softmax(1)  # (n, classes), 0 at the label
    return remembered * (others - label.to(others))
