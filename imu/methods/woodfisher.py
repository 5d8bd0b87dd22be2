"""IU, influence unlearning: one Newton step away from the forget set (Koh & Liang 2017, arXiv
1703.04730, with the inverse of Singh & Alistarh 2020, "WoodFisher", arXiv 2004.14340, as in Jia et
al. 2023, arXiv 2304.04934).

    θ ← θ + scale (F + damping I)⁻¹ (1/N) Σ_{i in D_f} g_i,   F = (1/m) Σ_j g_j g_jᵀ

g are gradients of the loss, N the size of the training data, and F the empirical Fisher of all
parameters over m retain samples. WoodFisher's recursion equals, by the Woodbury identity,

    (F + λI)⁻¹ v = (v − Gᵀ (mλI + G Gᵀ)⁻¹ G v) / λ,   G: (m, parameters)

which is what is computed. Needs the retain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.influences.parameters import per_sample_gradients
from imu.methods import ForgetSet, Step
from imu.methods.common.descent import watcher
from imu.models import trainable
from imu.objectives import Objective, Samples

NEEDS = frozenset({"forget", "retain"})
SEARCH = {
    "scale": (0.03, 0.1, 0.3, 1.0),
    "damping": (1e-2, 1e-1, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    scale: float = 0.1  # of the step; 1 is the influence-function estimate
    damping: float = 0.01  # added to the Fisher's diagonal, squared gradient
    fisher_samples: int = 256  # m: memory is m times the number of parameters
    chunk: int = 64  # samples whose gradients are computed at once

    def __post_init__(self) -> None:
        check_fields(self, scale="> 0", damping="> 0", fisher_samples=">= 1", chunk=">= 1")


def unlearn(
    model: nn.Module,
    objective: Objective,
    config: Config,
    generator: torch.Generator,
    *,
    forget: ForgetSet,
    retain: Samples,
) -> Iterator[Step]:
    """Yields the original and the model after the step."""
    watch = watcher(model, objective, forget)
    yield watch(0)
    parameters = trainable(model)

    def rows(samples: Samples) -> Iterator[Tensor]:
        chunks = per_sample_gradients(model, objective, samples, list(parameters), config.chunk)
        for gradients in chunks:
            yield torch.cat([gradients[name].flatten(1) for name in parameters], 1)  # (b, p)

    chosen = torch.randperm(len(retain), generator=generator)[: config.fisher_samples]
    total = torch.stack([part.sum(0) for part in rows(forget.samples)]).sum(0)  # (p,)
    step = total / (len(forget.samples) + len(retain))
    change = inverse_fisher_product(torch.cat(list(rows(retain[chosen]))), step, config.damping)
    with torch.no_grad():
        parts = change.split([parameter.numel() for parameter in parameters.values()])
        for parameter, part in zip(parameters.values(), parts, strict=True):
            parameter.add_(config.scale * part.view_as(parameter))
    yield watch(1)


def inverse_fisher_product(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """(GᵀG / m + damping I)⁻¹ v for G (m, p) and v (p,), in the precision of G."""
    m = len(gradients)
    gram = gradients @ gradients.T  # (m, m)
    gram.diagonal().add_(m * damping)
    inner = torch.linalg.solve(gram, gradients @ vector)
    return (vector - gradients.T @ inner) / damping
