"""Which training samples made a prediction: a score for every pair of one and a query.

    s_iq = ⟨g_i, (F + λ)⁻¹ g_q⟩

g_i, g_q: gradients of the losses of training sample i and of query q; F: the Fisher matrix of the
training samples, damping λ. Positive: i lowered the loss of q, so that without it the prediction
would be less certain; to first order by s_iq / n (Koh & Liang 2017, arXiv 1703.04730, eq. 2). With
the training samples for queries, the mean of −s_iq over q is the score "mean" of
``imu.influences``, and s_ii the score "self".

The full Fisher of a head is solved in the space of samples (``imu.influences.head``): with Gram
matrices K of the training samples and K' of these with the queries, s = (K/n + λ)⁻¹ K'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.influences.checks import finite
from imu.influences.head import residuals
from imu.influences.parameters import ParameterInfluence, per_sample_gradients
from imu.objectives import Objective, Samples


def pair_influence(
    model: nn.Module,
    objective: Objective,
    train: Samples,
    queries: Samples,
    curvature: ParameterInfluence,
    *,
    chunk: int,
) -> Tensor:
    """Scores (n, m) of n training samples and m queries.

    curvature: of the training samples, over the parameters that count. Memory: gradients of
    ``chunk`` queries and of ``chunk`` training samples, whose gradients are computed again for
    every chunk of queries.
    """
    names = list(curvature.fisher)
    columns = []
    for asked in per_sample_gradients(model, objective, queries, names, chunk):
        towards = {name: curvature.solved(name, g) for name, g in asked.items()}
        rows = [
            torch.stack([_inner(g, towards[name]) for name, g in own.items()]).sum(0)
            for own in per_sample_gradients(model, objective, train, names, chunk)
        ]
        columns.append(torch.cat(rows))  # (n, b)
    return _finite(torch.cat(columns, 1))


def full_pairs(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    damping: float,
    damping_share: float,
    bias: bool,
) -> Tensor:
    """The same with the full Fisher of a head: of training samples and queries, in this order."""
    # As in ``head_influence``: in float64, for its condition number.
    h = [F.pad(of.double(), (0, int(bias)), value=1.0) for of in features]
    delta = [residuals(z.double(), y) for z, y in zip(logits, targets, strict=True)]
    own, towards = ((delta[0] @ d.T) * (h[0] @ of.T) for d, of in zip(delta, h, strict=True))
    damped = own / len(own)
    # The trace of F is that of K / n, and it has as many rows as the head has numbers.
    damping += damping_share * damped.trace().item() / (delta[0].shape[1] * h[0].shape[1])
    damped.diagonal().add_(damping)
    solved = torch.cholesky_solve(towards, torch.linalg.cholesky(damped))
    return _finite(solved.to(features[0].dtype))


def _inner(rows: Tensor, columns: Tensor) -> Tensor:
    return rows.flatten(1) @ columns.flatten(1).T


def _finite(scores: Tensor) -> Tensor:
    finite(scores.sum(1))
    return scores
