"""Influence on any parameters of any network, for any objective.

With the gradients g_i of the samples' losses ℓ_i with respect to the chosen parameters θ, their
diagonal Fisher F = mean_i g_i² and mean ḡ = mean_i g_i, damping λ:

    mean   s_i = −⟨g_i, v⟩ = −∂/∂ε ℓ_i(θ + εv) at ε = 0,    v = ḡ / (F + λ)
    self   s_i = ⟨g_i, g_i / (F + λ)⟩

The first is a directional derivative, so one forward-mode pass yields it for a whole chunk of
samples. Sources: arXiv 2508.01620, section 3; Pearlmutter 1994 for the derivative along v.
The network runs in evaluation mode, so that no sample's loss depends on another sample.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from imu.bounds import one_of, require
from imu.influences.checks import check, finite, raise_for
from imu.influences.head import Score
from imu.influences.kronecker import Basis
from imu.influences.prefix import Prefix, record, replaying
from imu.models import evaluating, places
from imu.objectives import Inputs, Objective, Samples

Chosen = Sequence[str | nn.Module]
Progress = Callable[[int, int], None]  # samples done, and all, counted once for each pass
PASSES = 2  # over the samples: Fisher and mean, then the scores
Tree = Inputs | dict[str, Tensor]  # of tensors


@dataclass(frozen=True, kw_only=True)
class ParameterInfluence:
    """scores (n,); Fisher diagonal and mean gradient by parameter name, each of its shape.

    damping: λ, the share of the Fisher's included. bases: of the parameters whose Fisher is
    diagonal along other directions, and is given there.
    """

    scores: Tensor
    fisher: dict[str, Tensor]
    mean: dict[str, Tensor]
    damping: float
    bases: dict[str, Basis] = field(default_factory=dict)

    def solved(self, name: str, gradients: Tensor) -> Tensor:
        """(F + λ)⁻¹ g of each: (b, *shape)."""
        damped = self.fisher[name] + self.damping
        if (basis := self.bases.get(name)) is None:
            return gradients / damped
        along = basis.forth(gradients) / damped
        return basis.back(along).view_as(gradients)


def parameter_influence(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    *,
    parameters: Chosen | None,
    damping: float,
    damping_share: float = 0.0,
    chunk: int,
    score: Score = "mean",
    cache_prefix: bool = False,
    progress: Progress | None = None,
) -> ParameterInfluence:
    """Influence scores and their pieces, in the precision of the parameters.

    parameters: modules, or names of modules or parameters; None: what the objective says.
    damping_share: of the mean of the Fisher's diagonal, added to the damping.
    chunk: samples whose gradients are held at once. cache_prefix: run what does not depend on the
    parameters once instead of in every pass; costs the memory that ``prefix.record`` states.
    progress: is called after every chunk.

    Memory: ``chunk`` gradients, see ``gradient_bytes``, the squares of those of one parameter, and
    four tensors of the size of the parameters.
    Raises ValueError for an empty set, an unknown name or a value out of range, and
    FloatingPointError when a score is not finite.
    """
    check(len(samples), damping)
    one_of("score", score, ("mean", "self"))
    if parameters is None:
        parameters = objective.influence_parameters(model)
    losses = _Losses(
        model, objective, samples, chosen(model, parameters), chunk, cache_prefix, progress
    )
    n = len(samples)
    fisher = {name: torch.zeros_like(value) for name, value in losses.values.items()}
    mean = {name: torch.zeros_like(value) for name, value in losses.values.items()}
    for gradients in losses.gradients():
        for name, g in _taken(gradients):  # (b, *shape)
            fisher[name] += g.square().sum(0) / n
            mean[name] += g.sum(0) / n
    if not all(f.isfinite().all() for f in fisher.values()):
        _raise_for_gradients(losses)
    damping += damping_share * mean_of(fisher)
    if score == "self":
        inverse = {name: 1 / (f + damping) for name, f in fisher.items()}
        scores = torch.cat([_weighted(g, inverse) for g in losses.gradients()])
    else:
        direction = {name: mean[name] / (f + damping) for name, f in fisher.items()}
        scores = -losses.slopes(direction)
    return ParameterInfluence(scores=finite(scores), fisher=fisher, mean=mean, damping=damping)


def mean_of(fisher: Mapping[str, Tensor]) -> float:
    """Of all numbers of a diagonal."""
    return sum(f.sum().item() for f in fisher.values()) / sum(f.numel() for f in fisher.values())


def gradient_bytes(model: nn.Module, parameters: Chosen, chunk: int) -> int:
    """What the gradients of ``chunk`` samples take: one of each parameter, for each sample."""
    sizes = (p.numel() * p.element_size() for p in chosen(model, parameters).values())
    return chunk * sum(sizes)


def per_sample_gradients(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    names: Chosen,
    chunk: int,
    *,
    cache_prefix: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Gradient of every sample's loss, ``chunk`` samples after another, in evaluation mode.

    names: as in ``chosen``. Yields by parameter name (b, *shape) with b <= chunk, detached.
    Between two chunks the network is in the mode it was in.
    """
    parameters = chosen(model, names)
    yield from _Losses(model, objective, samples, parameters, chunk, cache_prefix).gradients()


def chosen(model: nn.Module, parameters: Chosen) -> dict[str, nn.Parameter]:
    """The parameters of the given modules, and the parameters given by name, by name.

    "" and the network itself mean all. Raises ValueError for an unknown name, a module that is
    not part of the network, and a choice without any parameter.
    """
    known = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in known.items()}
    modules = dict(model.named_modules(remove_duplicate=False))
    every = dict(model.named_parameters(remove_duplicate=False))
    found: set[str] = set()
    for choice in parameters:
        if isinstance(choice, str) and choice in every:
            found.add(names[id(every[choice])])
            continue
        module = modules.get(choice) if isinstance(choice, str) else choice
        if module is None or all(module is not own for own in modules.values()):
            choices = [
                n for n, m in model.named_modules() if n and any(True for _ in m.parameters())
            ]
            raise ValueError(
                f"{type(model).__name__} has no module or parameter {choice!r}: choose from "
                f"{', '.join(choices)}, or a parameter of these"
            )
        inside = {names[id(parameter)] for parameter in module.parameters()}
        if not inside:
            raise ValueError(f"the module {choice!r} has no parameters that could carry influence")
        found |= inside
    if not found:
        raise ValueError("no parameters are chosen: influence needs at least one")
    return {name: parameter for name, parameter in known.items() if name in found}


class _Losses:
    """The losses of samples as a function of the chosen parameters' values."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        samples: Samples,
        parameters: dict[str, nn.Parameter],
        chunk: int,
        cache_prefix: bool,
        progress: Progress | None = None,
    ) -> None:
        require("chunk", chunk, ">= 1")
        self.values = {name: parameter.detach() for name, parameter in parameters.items()}
        self._places = {at: name for at, name in places(model).items() if name in parameters}
        self._network = _Network(model, objective)
        self._samples, self._chunk = samples, chunk
        self._progress, self._done = progress, 0
        if cache_prefix:
            with self._network.differentiable():
                self._network.prefix = record(
                    model,
                    lambda some: self._network(some.inputs, some.targets, {}),
                    samples,
                    parameters.values(),
                    chunk,
                )

    def gradients(self) -> Iterator[dict[str, Tensor]]:
        """Of every sample's loss, by parameter name: (b, *shape), b <= chunk."""

        def of_one(values: dict[str, Tensor], *sample: Tree) -> Tensor:
            alone = tree_map(lambda entry: entry[None], sample)
            return self._at(values, *alone).squeeze(0)

        differentiate = vmap(grad(of_one), in_dims=(None, 0, 0, 0))
        for inputs, targets, rows in self._chunks():
            with self._network.differentiable():
                gradients = differentiate(self.values, inputs, targets, rows)
            yield gradients

    def slopes(self, direction: dict[str, Tensor]) -> Tensor:
        """Derivative of every sample's loss along ``direction``, a value per parameter: (n,)."""
        slopes = []
        for chunk in self._chunks():
            with self._network.differentiable():
                along = jvp(lambda values: self._at(values, *chunk), (self.values,), (direction,))  # noqa: B023
            slopes.append(along[1])
        return torch.cat(slopes)

    def _at(self, values: dict[str, Tensor], *chunk: Tree) -> Tensor:
        own = {f"model.{place}": values[name] for place, name in self._places.items()}
        losses: Tensor = functional_call(self._network, own, chunk, tie_weights=False)
        return losses

    def _chunks(self) -> Iterator[tuple[Inputs, Tensor, dict[str, Tensor]]]:
        """Inputs, targets and recorded outputs of ``chunk`` samples after another."""
        for at in range(0, len(self._samples), self._chunk):
            index = slice(at, at + self._chunk)
            some = self._samples[index]
            yield some.inputs, some.targets, self._network.prefix.rows(index)
            self._done += len(some)
            if self._progress is not None:
                self._progress(self._done, PASSES * len(self._samples))


class _Network(nn.Module):
    """From samples to losses: ``torch.func.functional_call`` wants this to be one module."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective, self.prefix = model, objective, Prefix()

    def forward(self, inputs: Inputs, targets: Tensor, rows: dict[str, Tensor]) -> Tensor:
        with replaying(self.model, self.prefix, rows):
            return self.objective.losses(self.objective.logits(self.model, inputs), targets)

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Evaluation mode, no outer graph, and attention that torch.func can differentiate."""
        with (
            evaluating(self.model),
            without_fast_path(),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            warnings.catch_warnings(),
        ):
            # torch's own: its first forward-mode pass uses what it deprecates.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
            yield


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Inside, torch's transformer layers run as operations that have gradients."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _weighted(gradients: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
    """Σ weight · g² over all parameters: (b,)."""
    terms = [g.square().flatten(1) @ weights[name].flatten() for name, g in _taken(gradients)]
    return torch.stack(terms).sum(0)


def _taken(gradients: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each in turn, taken out: else a chunk would lie beside the next one."""
    for name in list(gradients):
        yield name, gradients.pop(name)


def _raise_for_gradients(losses: _Losses) -> None:
    """Name the sample that is to blame: through the mean it spoils the scores of all."""
    ones = {name: torch.ones_like(value) for name, value in losses.values.items()}
    raise_for(torch.cat([_weighted(g, ones) for g in losses.gradients()]))
