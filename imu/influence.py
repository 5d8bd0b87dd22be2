"""Influence of each forget sample on the head, in closed form.

Source: IMU, arXiv 2508.01620, section 3. For cross-entropy and a linear head with input h, the
gradient of sample i is g_i = δ_i ⊗ [h_i, 1], δ_i = softmax(z_i) − onehot(y_i). With the diagonal
empirical Fisher F = mean_i g_i² and the mean gradient ḡ = mean_i g_i, the influence is

    s_i = −⟨g_i, ḡ / (F + damping)⟩.

Because g_i is an outer product, no per-sample gradient is built: memory is n(classes + d)
instead of n · classes · d.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Config:
    damping: float = 0.01  # added to the Fisher diagonal, same unit (squared gradient)
    clip_quantile: float = 0.93  # weights above this quantile of the kept weights are cut to it
    top_fraction: float = 1.0  # share of the negative-influence samples kept, largest |s| first

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise ValueError(f"damping must be > 0, got {self.damping}")
        for name in ("clip_quantile", "top_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class HeadInfluence:
    """scores (n,); Fisher diagonal and mean gradient of weight (classes, d) and bias (classes,)."""

    scores: Tensor
    fisher_weight: Tensor
    fisher_bias: Tensor
    mean_weight: Tensor
    mean_bias: Tensor


def head_influence(
    features: Tensor, logits: Tensor, labels: Tensor, *, damping: float
) -> HeadInfluence:
    """Influence scores and their pieces from one cached pass, in the precision of the input.

    features: (n, d), the head's input. logits: (n, classes). labels: (n,), int64.
    damping: > 0. Raises ValueError for an empty set or shapes that do not fit, and
    FloatingPointError when a score is not finite.
    """
    if len(labels) == 0:
        raise ValueError("the forget set is empty: influence needs at least one sample")
    if not len(features) == len(logits) == len(labels):
        raise ValueError(
            f"features, logits and labels must have one row per sample, got "
            f"{len(features)}, {len(logits)} and {len(labels)} rows"
        )
    if not damping > 0:
        raise ValueError(f"damping must be > 0, got {damping}")
    n = len(labels)
    delta = logits.softmax(1) - F.one_hot(labels, logits.shape[1]).to(logits)  # (n, classes)
    fisher_weight = delta.square().T @ features.square() / n  # (classes, d)
    fisher_bias = delta.square().mean(0)  # (classes,)
    mean_weight = delta.T @ features / n  # (classes, d)
    mean_bias = delta.mean(0)  # (classes,)
    direction_weight = mean_weight / (fisher_weight + damping)  # (classes, d)
    direction_bias = mean_bias / (fisher_bias + damping)  # (classes,)
    scores = -(delta * (features @ direction_weight.T + direction_bias)).sum(1)  # (n,)
    if not scores.isfinite().all():
        first = int((~scores.isfinite()).nonzero()[0])
        raise FloatingPointError(f"influence of sample {first} is {scores[first].item()}")
    return HeadInfluence(
        scores=scores,
        fisher_weight=fisher_weight,
        fisher_bias=fisher_bias,
        mean_weight=mean_weight,
        mean_bias=mean_bias,
    )


def ascent_weights(
    scores: Tensor, *, clip_quantile: float, top_fraction: float
) -> tuple[Tensor, Tensor]:
    """Weight and selection of each sample, from its influence (arXiv 2508.01620, section 3).

    Kept are samples with s_i < 0, whose gradient agrees with the mean forget gradient, and of
    these the ``top_fraction`` with the largest |s_i| (at least one). A kept sample weighs
    sqrt(|s_i|), cut at the ``clip_quantile`` of the kept weights; all others weigh 0.

    Returns weights (n,) in the precision of ``scores`` and selected (n,) bool. Raises ValueError
    when no score is negative.
    """
    negative = scores < 0
    if not negative.any():
        raise ValueError("no forget sample has negative influence: there is nothing to ascend")
    keep = max(1, round(top_fraction * int(negative.sum())))
    order = torch.where(negative, scores, torch.inf).argsort(stable=True)
    selected = torch.zeros_like(negative)
    selected[order[:keep]] = True
    weights = torch.where(selected, scores.abs().sqrt(), torch.zeros_like(scores))
    limit = weights[selected].quantile(clip_quantile)
    return weights.clamp(max=limit), selected
