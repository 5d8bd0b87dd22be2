"""Sequences of states, such as those of Markov chains: the next state at every position.

A state is a token, so that networks for texts take them; nothing is given and nothing ends a
sequence: the first state is read alone, every other one predicted.

    tokens   x₁ x₂ … x_{T−1}
    targets  x₂ x₃ … x_T
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imu.datasets.common.sequences import Sequences
from imu.models import head_name
from imu.objectives import Inputs, Samples, mean_cross_entropy

NETWORKS = "language"  # the kind of networks that take them


@dataclass(frozen=True, kw_only=True)
class NextState:
    """A causal network: states (n, positions) in, logits (n, positions, states) out.

    Influence lies on the output layer, as in the published sequence experiment.
    """

    bounds: None = None  # numbers of states cannot be perturbed

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"states must be one tensor, got {type(inputs).__name__}")
        logits: Tensor = model(inputs.to(next(model.parameters(), inputs).device))
        return logits

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return (head_name(model),)


def described(data: Sequences, network: ModuleType, config: Any) -> dict[str, Any]:
    """How many states there are.

    Raises ValueError for a network that begins from weights, which know texts, and one that takes
    fewer positions or tokens than there are.
    """
    if hasattr(network, "pretrained"):
        name = network.__name__.rpartition(".")[2]
        raise ValueError(f"network.name: {name} begins from weights for texts, not for states")
    positions = data.states.shape[1] - 1
    for field, least, of in (
        ("context", positions, "the states of a sequence but the last"),
        ("vocabulary", data.count, "the different states"),
    ):
        if getattr(config, field) < least:
            raise ValueError(
                f"network.{field} must be >= {least}, {of}, got {getattr(config, field)}"
            )
    return {"states": data.count, "classes": list(data.classes)}


def built(network: ModuleType, config: Any, about: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = network.build(config, about["states"])
    return model


def objective(about: Mapping[str, Any]) -> NextState:
    return NextState()


def samples(
    data: Sequences,
    rows: list[int],
    about: Mapping[str, Any],
    device: torch.device,
    *,
    perturbed: bool = False,
) -> Samples:
    """States but the last, and at each position the state that follows: (n, length − 1) both."""
    states = torch.from_numpy(data.states[np.asarray(rows, int)]).to(device)
    return Samples(states[:, :-1].contiguous(), states[:, 1:].contiguous())
