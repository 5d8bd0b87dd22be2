"""The gradients of many samples for one parameter, as products that are not written out.

An operation that is linear in its parameter gives a sum over positions t (tokens, pixels) of
products of what enters, a_it, and the gradient of what comes out, δ_it. Of sample i:

    Product  weights of nn.Linear, nn.Conv2d    g_i = Σ_t δ_it ⊗ a_it; for images a_it is a patch
    Rows     nn.Embedding                       row v of g_i = Σ δ_it over the t whose token is v
    Direct   norms, biases, elementwise         g_i = Σ_t δ_it ∘ a_it; a_it is normalised, or 1

Source of the products: Goodfellow 2015, arXiv 1510.01799.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK, BLOCK_ON_GPU = 2**20, 2**28  # bytes of gradients at once; a CPU's fit into its cache


class Part(Protocol):
    """The gradients g_i of n samples for one parameter, not written out."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is held."""

    def gradients(self, samples: slice) -> Callable[[slice], Tensor]:
        """g_i of some samples, written out for some rows of the parameter: (b, rows, ...)."""

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i g_i and Σ_i g_i², of the parameter's shape, ``like``."""

    def weighted(self, weights: Tensor) -> Tensor:
        """⟨g_i, weights ∘ g_i⟩: (n,)."""

    def slopes(self, direction: Tensor) -> Tensor:
        """⟨g_i, direction⟩: (n,)."""


@dataclass(frozen=True)
class Direct:
    """Gradients that are small enough to be written out: (n, *shape)."""

    written: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.written,)

    def gradients(self, samples: slice) -> Callable[[slice], Tensor]:
        return lambda rows: self.written[samples, rows]

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.written.sum(0), self.written.square().sum(0)

    def weighted(self, weights: Tensor) -> Tensor:
        return self.written.square().reshape(len(self.written), -1) @ weights.flatten()

    def slopes(self, direction: Tensor) -> Tensor:
        return self.written.reshape(len(self.written), -1) @ direction.flatten()


@dataclass(frozen=True)
class Rows:
    """An embedding. tokens: (n, t). delta: (n, t, d)."""

    tokens: Tensor
    delta: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.tokens, self.delta

    def gradients(self, samples: slice) -> Callable[[slice], Tensor]:
        tokens, delta = self.tokens[samples], self.delta[samples]

        def written(rows: slice) -> Tensor:
            count = rows.stop - rows.start
            # What is not among the rows goes into one more, which is cut off.
            at = tokens - rows.start
            at = at.where((at >= 0) & (at < count), count)
            found = delta.new_zeros(len(delta), count + 1, delta.shape[-1])
            found.scatter_add_(1, at[..., None].expand_as(delta), delta)
            return found[:, :count]

        return written

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        _, token, own = self._summed(len(like))
        first, second = (
            torch.zeros_like(like).index_add_(0, token, moment) for moment in (own, own.square())
        )
        return first, second

    def weighted(self, weights: Tensor) -> Tensor:
        sample, token, summed = self._summed(len(weights))
        own = (summed.square() * weights[token]).sum(1)
        return own.new_zeros(len(self.tokens)).index_add_(0, sample, own)

    def slopes(self, direction: Tensor) -> Tensor:
        return (direction[self.tokens] * self.delta).flatten(1).sum(1)

    def _summed(self, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
        """Every pair of a sample and a token that it has, and Σ δ over the places of that token."""
        samples = torch.arange(len(self.tokens), device=self.tokens.device)
        pairs, place = (samples[:, None] * vocabulary + self.tokens).unique(return_inverse=True)
        summed = self.delta.new_zeros(len(pairs), self.delta.shape[-1])
        summed.index_add_(0, place.flatten(), self.delta.flatten(0, 1))
        return pairs // vocabulary, pairs % vocabulary, summed


@dataclass(frozen=True)
class Product:
    """The weight of a linear layer or a convolution.

    given: (n, ..., i), or images (n, k, i, height, width). delta: (n, ..., o), or (n, k, o, ...).
    shape: of the weight. convolution: its stride, padding, dilation and groups.
    """

    given: Tensor
    delta: Tensor
    shape: torch.Size
    convolution: Mapping[str, Any] | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.given, self.delta

    @property
    def groups(self) -> int:
        return (self.convolution or {}).get("groups", 1)

    @property
    def patches(self) -> int:
        """Numbers in the a of one sample."""
        positions = self.delta[0].numel() // self.shape[0]
        return positions * self.shape[1:].numel() * self.groups

    def factors(self, samples: slice) -> tuple[Tensor, Tensor]:
        """δ and a: (b, groups, o / groups, t), (b, groups, i / groups · kernel, t)."""
        given, delta = self.given[samples], self.delta[samples]
        if self.convolution is None:
            return delta.flatten(1, -2).mT[:, None], given.flatten(1, -2).mT[:, None]
        patches = _patches(given.flatten(0, 1), self.shape[2:], **self.convolution)
        d, a = (
            t.unflatten(2, (self.groups, -1)).permute(0, 2, 3, 1, 4).flatten(3)
            for t in (delta.flatten(3), patches.unflatten(0, given.shape[:2]))  # (b, k, ..., t)
        )
        return d, a

    def gradients(self, samples: slice) -> Callable[[slice], Tensor]:
        d, a = self.factors(samples)
        if self.groups > 1:
            return lambda rows: (d @ a.mT).view(len(d), *self.shape)[:, rows]
        return lambda rows: (d[:, 0, rows] @ a[:, 0].mT).unflatten(2, self.shape[1:])

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if not self._one_position:
            return Sum((self,)).moments(like)
        d, a = self._vectors()
        return (d.T @ a).view(self.shape), (d.square().T @ a.square()).view(self.shape)

    def weighted(self, weights: Tensor) -> Tensor:
        if not self._one_position:
            return Sum((self,)).weighted(weights)
        d, a = self._vectors()
        return ((d.square() @ weights.flatten(1)) * a.square()).sum(1)

    def slopes(self, direction: Tensor) -> Tensor:
        if self.convolution is None:
            out = F.linear(self.given, direction)
        else:
            out = F.conv2d(self.given.flatten(0, 1), direction, **self.convolution)
        return (out.view_as(self.delta) * self.delta).flatten(1).sum(1)

    @property
    def _one_position(self) -> bool:
        return self.groups == 1 and self.delta[0].numel() == self.shape[0]

    def _vectors(self) -> tuple[Tensor, Tensor]:
        d, a = self.factors(slice(None))
        return d[:, 0, :, 0], a[:, 0, :, 0]


@dataclass(frozen=True)
class Sum:
    """The sum of the gradients of several parts: one parameter in several operations.

    Written out are as many samples, or as many rows of one, as fit into a block. They are made
    for that, so that they may be changed in place.
    """

    parts: tuple[Part, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts for tensor in part.tensors)

    def gradients(self, samples: slice) -> Callable[[slice], Tensor]:
        first, *others = (part.gradients(samples) for part in self.parts)

        def written(rows: slice) -> Tensor:
            found = first(rows)
            for other in others:
                found = found + other(rows)
            return found

        return written

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.zeros_like(like), torch.zeros_like(like)
        for _, rows, g in self._blocks(like):
            if len(g) == 1:  # nothing is to be summed before
                first[rows] += g[0]
                second[rows].addcmul_(g[0], g[0])
                continue
            first[rows] += g.sum(0)
            second[rows] += g.square_().sum(0)
        return first, second

    def weighted(self, weights: Tensor) -> Tensor:
        total = weights.new_zeros(len(self.tensors[0]))
        for samples, rows, g in self._blocks(weights):
            total[samples] += g.square_().flatten(1) @ weights[rows].flatten()
        return total

    def slopes(self, direction: Tensor) -> Tensor:
        return torch.stack([part.slopes(direction) for part in self.parts]).sum(0)

    def _blocks(self, like: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        products = [part for part in self.parts if isinstance(part, Product)]
        room = (BLOCK if like.device.type == "cpu" else BLOCK_ON_GPU) // like.element_size()
        n, count = len(self.tensors[0]), len(like)
        at_once = max(1, room // max(like.numel(), *(p.patches for p in products), 1))
        grouped = any(part.groups > 1 for part in products)
        high = count if grouped else min(count, max(1, room // like[0].numel()))
        for start in range(0, n, at_once):
            samples = slice(start, min(start + at_once, n))
            written = self.gradients(samples)
            for row in range(0, count, high):
                rows = slice(row, min(row + high, count))
                yield samples, rows, written(rows)


def _patches(
    images: Tensor,
    kernel: tuple[int, ...],
    *,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,  # patches are of all channels
) -> Tensor:
    """What the kernel meets at every position: (n, channels · kernel, positions)."""
    if isinstance(padding, str):
        wide = dilation if isinstance(dilation, Sequence) else (dilation,) * len(kernel)
        # As torch does for "same": what is odd goes to the end.
        spans = [d * (k - 1) * (padding == "same") for d, k in zip(wide, kernel, strict=True)]
        images = F.pad(images, [w for span in spans[::-1] for w in (span // 2, span - span // 2)])
        padding = 0
    return F.unfold(images, kernel, dilation, padding, stride)


def together(parts: Sequence[Part]) -> Part:
    """Their sum, for one parameter."""
    written = [part.written for part in parts if isinstance(part, Direct)]
    others = [part for part in parts if not isinstance(part, Direct)]
    if written:
        others.append(Direct(torch.stack(written).sum(0) if len(written) > 1 else written[0]))
    return others[0] if len(others) == 1 else Sum(tuple(others))


def held(parts: Iterable[Part]) -> int:
    """Bytes; what several share is counted once."""
    memory = (tensor.untyped_storage() for part in parts for tensor in part.tensors)
    # Not ``data_ptr``, which tensor subclasses do not have.
    return sum({storage._cdata: storage.nbytes() for storage in memory}.values())
