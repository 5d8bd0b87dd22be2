"""The curvature of one weight along the eigenvectors of its Kronecker factors (EK-FAC).

The gradients of a linear layer or a convolution are g_i = Σ_t δ_it a_itᵀ, as is said in
``imu.influences.parts``. With eigenvectors Q_S of S = Σ_it δ_it δ_itᵀ, and Q_A of
A = Σ_it a_it a_itᵀ, their Fisher matrix is taken to be diagonal once both sides are turned:

    F ≈ (Q_S ⊗ Q_A) diag(Λ) (Q_S ⊗ Q_A)ᵀ,    Λ = mean_i (Q_Sᵀ g_i Q_A)²

Sources: George et al. 2018, arXiv 1806.03884, eq. 11; for influence Grosse et al. 2023, arXiv
2308.03296, section 3.1, who draw the labels from the network's prediction where here, as in all of
``imu.influences``, they are the samples' own. Biases, norms, embeddings, grouped convolutions and
weights in several operations have no such factors, and keep their own diagonal.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from imu.influences.parts import Part, Product


@dataclass(frozen=True)
class Basis:
    """Q_S (o, o) and Q_A (i, i), i being the numbers of one patch where it is a convolution."""

    outputs: Tensor
    inputs: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of Λ, and of a gradient that is turned."""
        return torch.Size((len(self.outputs), len(self.inputs)))

    def turned(self, part: Product) -> Product:
        """The same gradients, as Q_Sᵀ g_i Q_A: of a linear layer, at every position a patch."""
        d, a = (factor[:, 0].mT for factor in part.factors(slice(None)))  # (n, t, o), (n, t, i)
        return Product(a @ self.inputs, d @ self.outputs, self.shape)

    def forth(self, gradients: Tensor) -> Tensor:
        """Q_Sᵀ g Q_A of each: (b, o, i) of gradients (b, *shape of the weight)."""
        return self.outputs.T @ gradients.flatten(2) @ self.inputs

    def back(self, turned: Tensor) -> Tensor:
        """``forth`` undone: (b, o, i)."""
        return self.outputs @ turned @ self.inputs.T


def bases(every: Iterable[Mapping[str, Part]]) -> dict[str, Basis]:
    """Of the weights that have factors, by name, from the gradients of some samples each."""
    outer: dict[str, Tensor] = {}
    inner: dict[str, Tensor] = {}
    for parts in every:
        for name, part in parts.items():
            if isinstance(part, Product) and part.groups == 1:
                d, a = (factor[:, 0].mT.flatten(0, 1) for factor in part.factors(slice(None)))
                outer[name] = outer.get(name, 0.0) + d.T @ d
                inner[name] = inner.get(name, 0.0) + a.T @ a
    return {name: Basis(_vectors(outer[name]), _vectors(inner[name])) for name in outer}


def turned(parts: Mapping[str, Part], along: Mapping[str, Basis]) -> Iterator[tuple[str, Part]]:
    """One after another, as patches of one layer are many."""
    for name, part in parts.items():
        if name in along and isinstance(part, Product):
            part = along[name].turned(part)
        yield name, part


def _vectors(symmetric: Tensor) -> Tensor:
    # In float64: float32 loses the directions in which little is seen, which count most.
    found: Tensor = torch.linalg.eigh(symmetric.double()).eigenvectors
    return found.to(symmetric)
