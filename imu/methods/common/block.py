"""The end of a network as a network of its own: some layers, the head, and what lies between.

What does not depend on the layers is run once (``imu.influences.prefix``); a method may train the
layers on it, or move what enters them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.influences.prefix import Prefix, record, replaying
from imu.models import evaluating, head, head_name
from imu.objectives import Objective, Samples, mean_over_positions

CHUNK = 512  # samples of a pass over all
CHAINS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class Aims:
    """Samples, what enters the block for them, and what is to come out of it.

    entering: by module, each (n, ...). features: (n, *positions, d). predictions: logarithms,
    (n, *positions, classes).
    """

    samples: Samples
    entering: dict[str, Tensor]
    features: Tensor
    predictions: Tensor


class Block:
    """The part of a network from some layers on, which is run from what enters it."""

    def __init__(
        self, model: nn.Module, objective: Objective, layers: tuple[str, ...], count: int = 1
    ):
        """layers: by name; none: the last ``count`` blocks."""
        self.model = model
        self.objective = objective
        self.layers = layers or last_block(model, count)
        parts = dict(model.named_modules())
        for name in self.layers:
            if name not in parts or _holds(parts[name], head(model)):
                raise ValueError(
                    f"layers must be modules before the head {head_name(model)!r}, got {name!r}"
                )
        chosen = (p for name in self.layers for p in parts[name].parameters() if p.requires_grad)
        self.trained = list(dict.fromkeys(chosen))  # names may overlap
        if not self.trained:
            raise ValueError(
                f"layers must have parameters that require a gradient, got {self.layers}"
            )
        self._prefix = Prefix()

    def entering(self, samples: Samples) -> Prefix:
        """What does not depend on the block, run once."""
        with evaluating(self.model):
            self._prefix = record(
                self.model,
                lambda part: self.objective.logits(self.model, part.inputs),
                samples,
                self.trained,
                CHUNK,
            )
        return self._prefix

    def through(self, entering: dict[str, Tensor], samples: Samples) -> tuple[Tensor, Tensor]:
        """Features and logits, differentiable: (n, *positions, d), (n, *positions, classes)."""
        seen: list[Tensor] = []
        hook = head(self.model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            with replaying(self.model, self._prefix, entering):
                logits = self.objective.logits(self.model, samples.inputs)
        finally:
            hook.remove()
        return seen[-1], logits

    @torch.no_grad()
    def all(self, entering: dict[str, Tensor], samples: Samples) -> tuple[Tensor, Tensor]:
        """``through`` in evaluation mode, without gradient."""
        with evaluating(self.model):
            parts = [
                self.through(
                    {name: t[at * CHUNK : (at + 1) * CHUNK] for name, t in entering.items()}, part
                )
                for at, part in enumerate(samples.batches(CHUNK))
            ]
        features, logits = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)

    def distance(self, aims: Aims, rows: Tensor, scale: Tensor, output: float) -> Tensor:
        """Mean ‖h − h*‖² / scale + output · mean KL(p* ‖ p) over some rows."""
        part = aims.samples[rows]
        features, logits = self.through({n: t[rows] for n, t in aims.entering.items()}, part)
        apart = (features - aims.features[rows]).square().sum(-1) / scale
        if output:
            found = logits.log_softmax(-1)
            apart = apart + output * F.kl_div(
                found, aims.predictions[rows], reduction="none", log_target=True
            ).sum(-1)
        return mean_over_positions(apart, part.targets).mean()


def last_block(model: nn.Module, count: int = 1) -> tuple[str, ...]:
    """Names of the last module before the head with a matrix of weights, and what follows it.

    Chains of modules are opened, and modules that hold a chain of blocks of one kind, such as the
    encoder of a ViT. What follows are normalisations. count: of the modules with a matrix; all,
    where there are fewer. Raises ValueError when there is none.
    """
    found = _last(model, "", head(model), count)
    if not any(_matrix(model.get_submodule(name)) for name in found):
        raise ValueError(
            "nothing deeper than the head can be trained: no layer before it has parameters "
            "that require a gradient"
        )
    return tuple(found)


def _last(module: nn.Module, path: str, at: nn.Linear, count: int) -> list[str]:
    found: list[str] = []
    for name, child in reversed(list(module.named_children())):
        here = path + name
        if child is at or not any(p.requires_grad for p in child.parameters()):
            continue
        opened = _holds(child, at) or isinstance(child, CHAINS) or _holds_blocks(child)
        known = sum(_matrix(module.get_submodule(name.removeprefix(path))) for name in found)
        if known >= count:
            break
        found = (_last(child, f"{here}.", at, count - known) if opened else [here]) + found
    return found


def _holds(module: nn.Module, layer: nn.Linear) -> bool:
    """Whether ``layer`` is in ``module`` or is it: not by name, as a layer may have several."""
    return any(part is layer for part in module.modules())


def _holds_blocks(module: nn.Module) -> bool:
    return any(
        isinstance(child, CHAINS)
        and len(child) > 1
        and len({type(block) for block in child}) == 1
        and any(True for _ in child[0].children())
        for child in module.children()
    )


def _matrix(module: nn.Module) -> bool:
    return any(p.dim() > 1 and p.requires_grad for p in module.parameters())
