"""Influence on a linear head under cross-entropy, in closed form.

Source: IMU, arXiv 2508.01620, section 3. With the head's input h_i, one entry 1 appended where the
head has a bias, the gradient of sample i is an outer product:

    g_i = δ_i ⊗ h_i,    δ_i = softmax(z_i) − onehot(y_i).

So no gradient of a single sample is needed to score it. Δ (n, classes) holds the δ_i, H (n, d)
the h_i, λ is the damping, sums over parameters run over (classes, d), ∘ and the fraction bars are
elementwise:

    diagonal Fisher   F = (Δ∘Δ)ᵀ(H∘H) / n              mean gradient   ḡ = ΔᵀH / n
    mean              s_i = −⟨g_i, ḡ / (F + λ)⟩  = −Σ_c (Δ ∘ H (ḡ / (F + λ))ᵀ)_ic
    self              s_i = ⟨g_i, g_i / (F + λ)⟩ =  Σ_c (Δ² ∘ H² (1 / (F + λ))ᵀ)_ic

The full Fisher, F = (1/n) Σ g_i g_iᵀ with P = classes · d rows, is solved in the smaller of two
spaces. K = ΔΔᵀ ∘ HHᵀ, (n, n), is the Gram matrix of the gradients; by the Woodbury identity

    mean   s = −K (K/n + λ)⁻¹ 1/n      self   s = diag(K (K/n + λ)⁻¹).
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from imu.bounds import one_of
from imu.influences.checks import check, finite, raise_for
from imu.objectives import IGNORED

Fisher = Literal["diagonal", "full"]
Score = Literal["mean", "self"]
ROWS = 256  # gradients held at once while the full Fisher is summed


def head_influence(
    features: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    damping: float,
    damping_share: float = 0.0,
    bias: bool = True,
    fisher: Fisher = "diagonal",
    score: Score = "mean",
) -> Tensor:
    """Influence scores (n,) from one cached pass, in the precision of the input.

    features: (n, d), the head's input. logits: (n, classes), the head's output. targets: (n,),
    int64; a sample whose target is IGNORED has the gradient and the score 0. damping: > 0, in the
    unit of a squared gradient. damping_share: of the mean of the Fisher's diagonal, added to it.
    bias: whether the head has one.

    Memory: n(classes + d) numbers for the diagonal; for ``full_scores`` see there.
    Raises ValueError for an empty set, shapes that do not fit or a wrong choice, and
    FloatingPointError when a score is not finite.
    """
    _check(features, logits, targets, damping, fisher, score)
    n, precision = len(targets), features.dtype
    if fisher == "full":
        # Its condition number, up to trace(F) / damping, would eat most digits of a float32.
        features, logits = features.double(), logits.double()
    delta = residuals(logits, targets)  # (n, classes)
    h = F.pad(features, (0, 1), value=1.0) if bias else features  # (n, d + 1) or (n, d)
    diagonal = delta.square().T @ h.square() / n  # (classes, d + 1)
    if not diagonal.isfinite().all():
        _raise_for_gradients(delta, h)
    damping += damping_share * diagonal.mean().item()
    if fisher == "full":
        scores = full_scores(delta, h, damping=damping, score=score)
    elif score == "self":
        scores = (delta.square() * (h.square() @ (1 / (diagonal + damping)).T)).sum(1)
    else:
        mean = delta.T @ h / n  # (classes, d + 1)
        scores = -_inner(delta, h, mean / (diagonal + damping))
    return finite(scores.to(precision))


def residuals(logits: Tensor, targets: Tensor) -> Tensor:
    """∂ cross-entropy / ∂ logits, one row per sample, 0 where IGNORED: (n, classes).

    The label's entry p_y − 1 is taken as −Σ of the others, which keeps its digits where p_y rounds
    to 1, as it does on what a network has memorised.
    """
    predicted = targets != IGNORED  # (n,)
    index = targets.where(predicted, 0)[:, None]  # (n, 1)
    others = logits.softmax(1).scatter(1, index, 0.0)  # (n, classes)
    return others.scatter(1, index, -others.sum(1, keepdim=True)) * predicted[:, None]


def full_scores(
    delta: Tensor, h: Tensor, *, damping: float, score: Score, form: str | None = None
) -> Tensor:
    """Scores (n,) with the full Fisher of the gradients δ_i ⊗ h_i; equations above.

    delta: (n, classes). h: (n, d), the bias's 1 included. form: "gram" or "primal"; None takes
    the smaller one. Memory: Gram form, taken when n <= P = classes · d, three matrices (n, n);
    primal form, two matrices (P, P) and ROWS gradients.
    """
    smaller = "gram" if len(delta) <= delta.shape[1] * h.shape[1] else "primal"
    solve = {"gram": _gram_scores, "primal": _primal_scores}[form or smaller]
    return solve(delta, h, damping, score)


def _gram_scores(delta: Tensor, h: Tensor, damping: float, score: Score) -> Tensor:
    n = len(delta)
    gram = (delta @ delta.T) * (h @ h.T)  # (n, n)
    damped = gram / n
    damped.diagonal().add_(damping)
    factor = torch.linalg.cholesky(damped)
    if score == "self":
        return torch.cholesky_solve(gram, factor).diagonal()
    shares = gram.new_full((n, 1), 1 / n)
    return -(gram @ torch.cholesky_solve(shares, factor))[:, 0]


def _primal_scores(delta: Tensor, h: Tensor, damping: float, score: Score) -> Tensor:
    n, shape = len(delta), (delta.shape[1], h.shape[1])
    damped = damping * torch.eye(shape[0] * shape[1], dtype=h.dtype, device=h.device)  # (P, P)
    for g in _gradients(delta, h):
        damped.addmm_(g.T, g, alpha=1 / n)
    factor = torch.linalg.cholesky(damped)
    if score == "self":
        halves = (
            torch.linalg.solve_triangular(factor, g.T, upper=False)  # (P, rows)
            for g in _gradients(delta, h)
        )
        return torch.cat([half.square().sum(0) for half in halves])
    mean = (delta.T @ h / n).reshape(-1, 1)  # (P, 1)
    return -_inner(delta, h, torch.cholesky_solve(mean, factor).view(shape))


def _gradients(delta: Tensor, h: Tensor) -> Iterator[Tensor]:
    """Gradients of single samples, at most ROWS at once: (rows, P)."""
    for at in range(0, len(delta), ROWS):
        rows = slice(at, at + ROWS)
        yield (delta[rows, :, None] * h[rows, None, :]).flatten(1)


def _inner(delta: Tensor, h: Tensor, direction: Tensor) -> Tensor:
    """⟨δ_i ⊗ h_i, direction (classes, d)⟩ of every sample: (n,)."""
    return (delta * (h @ direction.T)).sum(1)


def _raise_for_gradients(delta: Tensor, h: Tensor) -> None:
    """Name the sample that is to blame: through the mean it spoils the scores of all."""
    raise_for(delta.square().sum(1) * h.square().sum(1))


def _check(
    features: Tensor, logits: Tensor, targets: Tensor, damping: float, fisher: str, score: str
) -> None:
    check(len(targets), damping)
    if not len(features) == len(logits) == len(targets):
        raise ValueError(
            f"features, logits and targets must have one row per sample, got "
            f"{len(features)}, {len(logits)} and {len(targets)} rows"
        )
    for name, tensor, form in (
        ("features", features, ("n", "d")),
        ("logits", logits, ("n", "classes")),
        ("targets", targets, ("n",)),
    ):
        if tensor.dim() != len(form):
            raise ValueError(
                f"{name} must have the dimensions {', '.join(form)}, got {tuple(tensor.shape)}"
            )
    one_of("fisher", fisher, ("diagonal", "full"))
    one_of("score", score, ("mean", "self"))
