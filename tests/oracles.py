"""Naive, slow, obviously right: what the fast paths are judged against. All in float64."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.objective import Objective, Samples

Rows = Tensor | np.ndarray


def per_sample(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each sample's cross-entropy, one backward pass each: (n, classes * d + classes).

    The weight comes first, row by row, then the bias.
    """
    gradients = []
    for h, label in zip(features.double(), labels, strict=True):
        w = weight.double().detach().requires_grad_()
        b = bias.double().detach().requires_grad_()
        loss = F.cross_entropy((w @ h + b)[None], label[None])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, (w, b))]))
    return torch.stack(gradients)


def gradients(
    model: nn.Module, objective: Objective, samples: Samples, parameters: list[nn.Parameter]
) -> Tensor:
    """Gradient of each sample's loss, one forward and one backward pass each: (n, P).

    The parameters follow one another as they are given; the network runs in evaluation mode.
    """
    model.eval()
    rows = []
    for i in range(len(samples)):
        sample = samples[i : i + 1]
        loss = objective.losses(objective.logits(model, sample.inputs), sample.targets).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
        )
    return torch.stack(rows).double()


def fisher_diagonal(gradients: Tensor) -> Tensor:
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        total = total + g * g
    return total / len(gradients)


def mean_gradient(gradients: Tensor) -> Tensor:
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        total = total + g
    return total / len(gradients)


def fisher_full(gradients: Tensor) -> Tensor:
    total = torch.zeros(gradients.shape[1], gradients.shape[1], dtype=torch.float64)
    for g in gradients:
        total = total + torch.outer(g, g)
    return total / len(gradients)


def aliased_mean(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Mean gradient as published: the running sum *is* sample 0, which is overwritten.

    Returns the mean and the gradients as the published program then sees them.
    """
    seen = [g.clone() for g in gradients]
    total = seen[0]
    for g in seen[1:]:
        total += g
    return total / len(seen), torch.stack(seen)


def influence(gradients: Tensor, mean: Tensor, fisher: Tensor, damping: float) -> Tensor:
    scores = []
    for g in gradients:
        s = 0.0
        for own, common, f in zip(g.tolist(), mean.tolist(), fisher.tolist(), strict=True):
            s -= own * common / (f + damping)
        scores.append(s)
    return torch.tensor(scores, dtype=torch.float64)


def self_influence(gradients: Tensor, fisher: Tensor, damping: float) -> Tensor:
    scores = []
    for g in gradients:
        s = 0.0
        for own, f in zip(g.tolist(), fisher.tolist(), strict=True):
            s += own * own / (f + damping)
        scores.append(s)
    return torch.tensor(scores, dtype=torch.float64)


def influence_full(
    gradients: Tensor, fisher: Tensor, damping: float, mean: Tensor | None = None
) -> Tensor:
    """−⟨g_i, (F + λI)⁻¹ ḡ⟩ where ``mean`` is given, else ⟨g_i, (F + λI)⁻¹ g_i⟩."""
    damped = fisher + damping * torch.eye(len(fisher), dtype=torch.float64)
    scores = []
    for g in gradients:
        solved = torch.linalg.solve(damped, g if mean is None else -mean)
        scores.append(float(sum(a * b for a, b in zip(g.tolist(), solved.tolist(), strict=True))))
    return torch.tensor(scores, dtype=torch.float64)


def log_unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_i log(1 − p_y) from log-sums, so that autograd of it holds where p_y rounds to 1."""
    total = torch.zeros((), dtype=torch.float64)
    for z, label in zip(logits, labels.tolist(), strict=True):
        others = torch.stack([z[k] for k in range(len(z)) if k != label])
        total = total + others.logsumexp(0) - z.logsumexp(0)
    return total


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.double().detach().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


def shifted(images: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Image i read from ``rows[i]`` lower and ``columns[i]`` further right; outside is 0."""
    moved = torch.zeros_like(images)
    n, channels, height, width = images.shape
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    v, u = y + rows[i], x + columns[i]
                    if 0 <= v < height and 0 <= u < width:
                        moved[i, c, y, x] = images[i, c, v, u]
    return moved


def accuracy(
    probabilities: Rows, labels: Rows, keep: Callable[[int], bool] = lambda label: True
) -> float:
    right = asked = 0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        if keep(label):
            asked += 1
            right += row.index(max(row)) == label
    return 100 * right / asked


def total_variation(p: Rows, q: Rows) -> float:
    distances = []
    for one, other in zip(p.tolist(), q.tolist(), strict=True):
        distances.append(sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2)
    return math.fsum(distances) / len(distances)


def average_gap(judged: dict[str, float], reference: dict[str, float]) -> float:
    total, count = 0.0, 0
    for name in ("FA", "RA", "TFA", "TA", "MIA"):
        if name in judged:
            total += abs(judged[name] - reference[name])
            count += 1
    return total / count


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Mean of log Σ_k exp z_k − z_y over samples."""
    total = 0.0
    for z, label in zip(logits.double(), labels.tolist(), strict=True):
        total += float(z.logsumexp(0) - z[label])
    return total / len(logits)


def pgd(
    gradient: Callable[[Tensor], Tensor],
    image: Tensor,
    radius: float,
    steps: int,
    bounds: tuple[float, float],
) -> Tensor:
    """Projected gradient ascent of one flat image (d,) in the L2 ball around it."""
    low, high = bounds
    found = image
    for _ in range(steps):
        slope = gradient(found)
        away = found + 2.5 * radius / steps * slope / math.sqrt(float(slope @ slope)) - image
        length = math.sqrt(float(away @ away))
        away = away * (radius / length) if length > radius else away
        moved = [min(max(v, low), high) for v in (image + away).tolist()]
        found = torch.tensor(moved, dtype=image.dtype)
    return found


def woodfisher(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """(λI + 1/m Σ g gᵀ)⁻¹ v by the rank-one recursion of Singh & Alistarh, arXiv 2004.14340."""
    m, width = gradients.shape
    inverse = torch.eye(width, dtype=torch.float64) / damping
    for g in gradients:
        along = inverse @ g
        inverse = inverse - torch.outer(along, along) / (m + g @ along)
    return inverse @ vector


def kl(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)) of one sample's logits (classes,)."""
    total = torch.zeros((), dtype=torch.float64)
    p, q = (teacher / temperature).softmax(0), (student / temperature).softmax(0)
    for k in range(len(p)):
        if p[k] > 0:
            total = total + p[k] * (p[k].log() - q[k].log())
    return total
