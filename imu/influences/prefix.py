"""The part of a network that does not depend on some parameters, run once and replayed.

Independent modules are found by running the network with gradients for those parameters alone:
what does not require a gradient does not depend on them. Their outputs are recorded for all
samples; while ``replaying``, the modules return the recorded rows and compute nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from imu.objectives import Samples

FREE = (nn.Identity, nn.Dropout)  # nothing is saved by recording what these pass on


@dataclass(frozen=True)
class Prefix:
    """Outputs by module name, each (n, ...), and the modules whose output only others here read.

    The latter return None when replayed: nothing is stored for them.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()

    def rows(self, index: slice | Tensor) -> dict[str, Tensor]:
        return {name: output[index] for name, output in self.outputs.items()}


def record(
    model: nn.Module,
    losses: Callable[[Samples], Tensor],
    samples: Samples,
    parameters: Iterable[nn.Parameter],
    chunk: int,
) -> Prefix:
    """Run what does not depend on ``parameters`` on all samples, ``chunk`` at once.

    model: in evaluation mode. losses: runs it on some samples. Recorded are the outermost modules
    that every run calls once and whose output is one tensor with a row per sample. Memory: n rows
    of each output that something other than a recorded module reads; in a chain of layers that is
    the last output alone.
    """
    if len(samples) == 0:
        return Prefix()
    with gradients_only_for(model, parameters), torch.enable_grad():
        names = _independent(model, losses, samples)
        read = _read(model, losses, samples, names)
    outputs: dict[str, Tensor] = {}
    missing: set[str] = set()
    start = 0

    def keep(name: str, _: Any, output: Tensor) -> None:
        if name not in outputs:
            outputs[name] = output.new_empty(len(samples), *output.shape[1:])
        # Copied at once: a later module may change the output in place.
        outputs[name][start : start + len(output)] = output
        missing.discard(name)
        if not missing:
            raise _Enough

    with _hooks(model, read, keep), torch.no_grad():
        for start in range(0, len(samples) if read else 0, chunk):
            missing = set(read)
            with suppress(_Enough):  # what follows would run for nothing
                losses(samples[start : start + chunk])
    return Prefix(outputs, frozenset(names - read))


class _Enough(Exception):
    """All that is to be recorded has run."""


@contextmanager
def replaying(model: nn.Module, prefix: Prefix, rows: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the modules of ``prefix`` return ``rows``, some of its recorded outputs."""

    def replay(name: str) -> Callable[..., Tensor | None]:
        # A copy, as the network may change it in place.
        return lambda *_, **__: rows[name].clone() if name in rows else None

    with ExitStack() as stack:
        for name in (*prefix.outputs, *prefix.unread):
            stack.enter_context(_forward(model.get_submodule(name), replay(name)))
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _independent(
    model: nn.Module, losses: Callable[[Samples], Tensor], samples: Samples
) -> set[str]:
    """The outermost modules that can be recorded.

    One sample is run alone and twice over: what has one row, then two, has a row per sample.
    """
    found = []
    for size in (1, 2):
        calls: dict[str, list[Any]] = {}
        with _hooks(model, None, lambda name, _, out: calls.setdefault(name, []).append(out)):  # noqa: B023
            losses(samples[torch.zeros(size, dtype=torch.int64)])
        found.append({name for name, outputs in calls.items() if _fits(outputs, size)})
    names = {n for n in found[0] & found[1] if not isinstance(model.get_submodule(n), FREE)}
    return {n for n in names if not any(inner(n, outer) for outer in names)}


def inner(name: str, outer: str) -> bool:
    """Whether the module ``name`` lies within ``outer``; "" is the network itself."""
    return name != outer and (outer == "" or name.startswith(f"{outer}."))


def _fits(outputs: list[Any], size: int) -> bool:
    return all(
        isinstance(out, Tensor) and out.dim() > 0 and len(out) == size and not out.requires_grad
        for out in outputs
    ) and (len(outputs) == 1)


def _read(
    model: nn.Module, losses: Callable[[Samples], Tensor], samples: Samples, names: set[str]
) -> set[str]:
    """Those of ``names`` whose output an operation outside of them takes."""
    reads = _Reads()
    with (
        _hooks(model, names, reads.leave),
        _hooks(model, names, reads.enter, before=True),
        reads,
    ):
        losses(samples[:1])
    return reads.found


class _Reads(TorchFunctionMode):
    """Which modules' outputs are given to operations outside of those modules."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._made: list[tuple[str, Tensor]] = []  # held, so that no id is used twice
        self._inside = 0

    def enter(self, name: str, given: Any, output: None = None) -> None:
        self._inside += 1

    def leave(self, name: str, given: Any, output: Tensor) -> None:
        self._inside -= 1
        self._made.append((name, output))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._inside == 0:
            given = {id(leaf) for leaf in tree_leaves((args, kwargs))}
            self.found |= {name for name, output in self._made if id(output) in given}
        return func(*args, **(kwargs or {}))


@contextmanager
def _hooks(
    model: nn.Module,
    names: set[str] | None,
    call: Callable[..., None],
    *,
    before: bool = False,
) -> Iterator[None]:
    """Inside, ``call(name, inputs, output)`` runs with every named module; None: with all."""

    def hook(name: str) -> Callable[..., None]:
        return lambda _, *rest: call(name, *rest)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if names is None or name in names:
                add = module.register_forward_pre_hook if before else module.register_forward_hook
                stack.callback(add(hook(name)).remove)
        yield


@contextmanager
def gradients_only_for(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    wanted = set(parameters)
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(parameter in wanted)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
