"""Influence by products: from what enters a layer and the gradient of what leaves it.

One forward and one backward pass of a chunk yield both, for every sample; how they make up the
gradients g_i is said in ``imu.influences.parts``. With F, ḡ, λ and v = ḡ / (F + λ) as in
``imu.influences.parameters``, and layer(v) what a layer makes of its input with v for parameters:

    F      is summed parameter by parameter, from as many g_i at once as fit into a block
    mean   s_i = −⟨g_i, v⟩ = −Σ_t ⟨δ_it, layer(v)(a_it)⟩, without any g_i
    self   s_i = ⟨g_i, g_i / (F + λ)⟩, from blocks as F

With ``fisher="ekfac"`` the same is done along other directions, in which F is nearer to diagonal
(``imu.influences.kronecker``); one more pass finds these first.

Which operations make up the gradients is found with two samples and tried against the gradients of
their losses; where that fails, ``Unfit`` is raised, and ``imu.influences.parameters`` serves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.linalg import vector_norm as norm

from imu.bounds import one_of, require
from imu.influences import kronecker
from imu.influences.checks import check, finite, raise_for
from imu.influences.head import Score
from imu.influences.operations import Call, Layout, Recorder, Unfit, by_sample, layout
from imu.influences.parameters import (
    PASSES,
    Chosen,
    ParameterInfluence,
    Progress,
    chosen,
    gradient_bytes,
    mean_of,
    without_fast_path,
)
from imu.influences.parts import Part, held, together
from imu.influences.prefix import Prefix, gradients_only_for, record, replaying
from imu.models import evaluating
from imu.objectives import Objective, Samples

Index = slice | Tensor
Parts = dict[str, Part]  # by parameter
TRIED = 2  # samples
KEPT = 2**28  # bytes, at least, of what may be kept for a second use
VARYING = "the network does not do the same with all samples"
AGREE = 0.01  # of a gradient's length: rounding stays below, what is put together wrongly does not


def layer_influence(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    *,
    parameters: Chosen | None,
    damping: float,
    damping_share: float = 0.0,
    chunk: int,
    score: Score = "mean",
    fisher: Literal["diagonal", "ekfac"] = "diagonal",
    cache_prefix: bool = False,
    progress: Progress | None = None,
) -> ParameterInfluence:
    """Influence scores and their pieces, in the precision of the parameters.

    parameters, damping_share, cache_prefix, progress: as in ``parameter_influence``. chunk: samples
    that run at once. It bounds memory: what a chunk has made is kept for the scores while all that
    is kept takes no more than ``chunk`` gradients would, or ``KEPT``; the rest is run again, for
    which alone the prefix is cached.

    Memory: a forward and a backward pass of ``chunk`` samples; ``layer_bytes``, and for "ekfac"
    the patches of a chunk in one layer; blocks of gradients (``parts.BLOCK``), or one row of a
    parameter and the patches of one sample if these are larger; three tensors of the size of the
    parameters, and at first one gradient.
    Raises ValueError for an empty set, an unknown name or a value out of range,
    FloatingPointError when a score is not finite, and ``Unfit``.
    """
    check(len(samples), damping)
    one_of("score", score, ("mean", "self"))
    one_of("fisher", fisher, ("diagonal", "ekfac"))
    if parameters is None:
        parameters = objective.influence_parameters(model)
    n, room = len(samples), _room(model, parameters, min(chunk, len(samples)))
    passes = _Passes(model, objective, samples, chosen(model, parameters), chunk)
    count = PASSES + (fisher == "ekfac")
    told = 0

    def tell(more: int) -> None:
        nonlocal told
        told += more
        if progress is not None:
            progress(told, count * n)

    with passes.ready() as tried:
        if cache_prefix and n * held(tried.values()) // TRIED > room:  # else all run once
            passes.cache_prefix()
        along: dict[str, kronecker.Basis] = {}
        if fisher == "ekfac":
            along = kronecker.bases(passes.run(rows) for rows in passes.chunks())
            tell(n)
        shapes = {n: along[n].shape if n in along else v.shape for n, v in passes.values.items()}
        mean = {name: passes.values[name].new_zeros(shape) for name, shape in shapes.items()}
        square = {name: torch.zeros_like(value) for name, value in mean.items()}
        made: list[tuple[slice, Parts | None]] = []
        for rows in passes.chunks():
            parts = passes.run(rows)
            for name, part in kronecker.turned(parts, along):
                first, second = part.moments(mean[name])
                mean[name] += first / n
                square[name] += second / n
            room -= held(parts.values())
            made.append((rows, parts if room >= 0 else None))
            tell(len(range(n)[rows]))

        def scored(measure: Callable[[Part, Tensor], Tensor], by: dict[str, Tensor]) -> Tensor:
            scores = []
            for rows, kept in made:
                parts = kronecker.turned(kept or passes.run(rows), along)
                own = [measure(part, by[name]) for name, part in parts]
                scores.append(torch.stack(own).sum(0))
                tell(len(range(n)[rows]))
            return torch.cat(scores)

        if not all(f.isfinite().all() for f in square.values()):
            raise_for(scored(weighted, {name: torch.ones_like(f) for name, f in square.items()}))
        damping += damping_share * mean_of(square)
        if score == "self":
            scores = scored(weighted, {name: 1 / (f + damping) for name, f in square.items()})
        else:
            towards = {name: mean[name] / (f + damping) for name, f in square.items()}
            scores = -scored(slopes, towards)
    back = {
        name: along[name].back(value).view_as(passes.values[name]) if name in along else value
        for name, value in mean.items()
    }
    return ParameterInfluence(
        scores=finite(scores), fisher=square, mean=back, damping=damping, bases=along
    )


def layer_bytes(
    model: nn.Module, objective: Objective, samples: Samples, parameters: Chosen, chunk: int
) -> int:
    """What ``layer_influence`` holds, at most, of what enters and leaves layers.

    That of one chunk, and what is kept of others. Raises ``Unfit``.
    """
    n = len(samples)
    passes = _Passes(model, objective, samples, chosen(model, parameters), chunk)
    with passes.ready() as parts:
        each = held(parts.values()) // TRIED
    return min(n * each, _room(model, parameters, min(chunk, n)) + chunk * each)


def _room(model: nn.Module, parameters: Chosen, chunk: int) -> int:
    return max(KEPT, gradient_bytes(model, parameters, chunk))


@dataclass(frozen=True)
class Found:
    """How an output is laid out, and what of it belongs to one sample."""

    layout: Layout
    shape: torch.Size

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> "Found | None":
        """Of an output of two samples, given its gradients for the loss of either."""
        found = layout(one, other)
        return None if found is None else cls(found, by_sample(one, found, TRIED).shape[1:])


class _Passes:
    """Passes of samples, and the gradients that they yield."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        samples: Samples,
        parameters: dict[str, nn.Parameter],
        chunk: int,
    ) -> None:
        require("chunk", chunk, ">= 1")
        self._model, self._objective, self._samples = model, objective, samples
        self._parameters, self._chunk = parameters, chunk
        self._prefix = Prefix()
        self._layouts: list[Found | None] = []  # of the output of each call; None: of no effect
        self._shared: frozenset[int] = frozenset()
        self.values = {name: parameter.detach() for name, parameter in parameters.items()}
        self._tried = torch.tensor([0, min(1, len(samples) - 1)])

    @contextmanager
    def ready(self) -> Iterator[Parts]:
        """Inside, passes can run; gives the gradients of two samples. Raises ``Unfit``."""
        with (
            evaluating(self._model),
            without_fast_path(),
            gradients_only_for(self._model, self._parameters.values()),
            torch.enable_grad(),
        ):
            yield self._find()

    def cache_prefix(self) -> None:
        """Runs what does not depend on the parameters; from now on passes do not."""
        own = self._parameters.values()
        self._prefix = record(self._model, self._losses_of, self._samples, own, self._chunk)

    def chunks(self) -> Iterator[slice]:
        for at in range(0, len(self._samples), self._chunk):
            yield slice(at, at + self._chunk)

    def run(self, rows: Index) -> Parts:
        """The gradients of some samples."""
        losses, calls = self._recorded(rows, self._shared)
        if len(calls) != len(self._layouts):
            raise Unfit(VARYING)
        deltas = grad(losses.sum(), [call.edge for call in calls], allow_unused=True)
        return self._parts(calls, deltas, len(losses))

    def _parts(self, calls: list[Call], deltas: Sequence[Tensor | None], n: int) -> Parts:
        shapes = {name: value.shape for name, value in self.values.items()}
        parts: dict[str, list[Part]] = defaultdict(list)
        for call, delta, found in zip(calls, deltas, self._layouts, strict=True):
            if delta is None:
                continue
            if found is None or by_sample(delta, found.layout, n).shape[1:] != found.shape:
                raise Unfit(VARYING)
            with torch.no_grad():
                for name, part in call.parts(delta, found.layout, n, shapes):
                    parts[name].append(part)
        return {name: together(own) for name, own in parts.items()}

    def _find(self) -> Parts:
        """How the outputs of all calls are laid out, and which are shared by the samples.

        Returns the gradients of two samples, that of the first held against what autograd says.
        """
        while True:
            losses, calls = self._recorded(self._tried, self._shared)
            if not calls or not losses.requires_grad:
                raise Unfit("no parameter is used as is known here")
            edges = [call.edge for call in calls]
            apart = [grad(loss, edges, allow_unused=True, retain_graph=True) for loss in losses]
            pairs = list(zip(*apart, strict=True))
            self._layouts = [None if one is None else Found.of(one, other) for one, other in pairs]
            unknown = [
                at
                for at, (found, (one, _)) in enumerate(zip(self._layouts, pairs, strict=True))
                if found is None and one is not None
            ]
            if not unknown:
                break
            if unknown[0] in self._shared:
                raise Unfit("an output that is not laid out by samples")
            self._shared |= {unknown[0]}
        parts = self._parts(calls, [None if a is None else a + b for a, b in pairs], TRIED)
        self._try(parts)
        return parts

    def _try(self, parts: Parts) -> None:
        alone = self._losses(self._tried[:1]).sum()
        right = grad(alone, list(self._parameters.values()), allow_unused=True)
        total = norm(torch.stack([norm(g) for g in right if g is not None]))
        for (name, value), own in zip(self.values.items(), right, strict=True):
            apart = torch.zeros_like(value) if own is None else own
            bound = AGREE * norm(apart) + torch.finfo(value.dtype).eps ** 0.5 * total
            if name in parts:
                apart = apart - parts[name].gradients(slice(0, 1))(slice(0, len(value)))[0]
            # What is rounding alone, as the gradient of a bias that cancels, is held to the rest.
            if not norm(apart) <= bound:
                raise Unfit(f"{name} is used in a way that is not known here")

    def _recorded(self, rows: Index, shared: frozenset[int]) -> tuple[Tensor, list[Call]]:
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        recorder = Recorder(names, len(self._samples[rows]), shared)
        try:
            with recorder:
                losses = self._losses(rows)
        except RuntimeError as error:
            if shared:  # repeated, the output does not fit into the network
                raise Unfit("an output that is not laid out by samples") from error
            raise
        return losses, recorder.calls

    def _losses(self, rows: Index) -> Tensor:
        with replaying(self._model, self._prefix, self._prefix.rows(rows)):
            return self._losses_of(self._samples[rows])

    def _losses_of(self, some: Samples) -> Tensor:
        return self._objective.losses(
            self._objective.logits(self._model, some.inputs), some.targets
        )


def weighted(part: Part, weights: Tensor) -> Tensor:
    return part.weighted(weights)


def slopes(part: Part, direction: Tensor) -> Tensor:
    return part.slopes(direction)
