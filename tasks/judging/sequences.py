"""Sequences: the probability of every state at every position, beside the true law."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.datasets.common.sequences import Sequences, said
from imu.metrics import Foretold, drawn, foretold_of
from imu.metrics._foretold import divergences, log_probabilities
from imu.objectives import Objective, Samples, sequences
from imu.objectives.sequences import NextState
from tasks.files.workspace import Workspace
from tasks.judging import SETS
from tasks.judging._drawn import Drawn


class Judge(Drawn):
    def __init__(
        self, workspace: Workspace, data: Sequences, about: Mapping[str, Any], device: torch.device
    ) -> None:
        super().__init__(workspace, data, about, device, sequences)
        self.shares = shares(data, self.every["retain"])

    def outputs(self, model: nn.Module) -> Foretold:
        return foretold_of(
            model,
            self.objective,
            self.data,
            self.samples,
            self.rows,
            self.shares,
            seed=self.workspace.seed,
        )

    def answers(self, outputs: Foretold, name: str) -> pd.DataFrame:
        """divergence: from what the chains that stay foretell, in nats, after each state."""
        logs, targets = outputs.log_probabilities[name], outputs.targets[name]
        apart = divergences(outputs.known[name], logs)
        most = logs.argmax(-1)
        actual = np.take_along_axis(logs, targets[..., None], -1)[..., 0]
        return pd.DataFrame(
            {
                "asked": [said(states) for states in outputs.states[name]],
                "wanted": [said(states) for states in targets],
                "said": [said(states) for states in most],
                "divergence": [" ".join(f"{nats:.4f}" for nats in row) for row in apart],
                "right": (most == targets).mean(1),
                "confidence": np.exp(actual.mean(1)),
            }
        )


def shares(data: Sequences, retained: list[int]) -> dict[str, float]:
    """Chain -> how many of the sequences that stay are its own, of those that have one."""
    subjects, counts = np.unique(data.attributes["subject"][retained], return_counts=True)
    return {str(name): float(count) for name, count in zip(subjects, counts, strict=True)}


def held(
    reference: nn.Module,
    objective: Objective,
    samples: Mapping[str, Samples],
    classes: tuple[int, ...],
) -> Callable[[nn.Module], tuple[dict[str, float], float]]:
    """The gap is the mean divergence from the reference over the forget and the retain set, in
    hundredths of a nat."""

    def logs(model: nn.Module, name: str) -> np.ndarray:
        return log_probabilities(model, objective, samples[name])

    sets = ("forget", "retain")
    aim = {name: np.exp(logs(reference, name)) for name in sets}

    def of(model: nn.Module) -> tuple[dict[str, float], float]:
        found = {
            f"KL_{name}": float(divergences(aim[name], logs(model, name)).mean()) for name in sets
        }
        return found, 100 * float(np.mean([*found.values()]))

    return of


def found(
    model: nn.Module,
    objective: NextState,
    samples: Mapping[str, Samples],
    data: Sequences,
    rows: Mapping[str, list[int]],
    about: Mapping[str, Any],
    classes: tuple[int, ...],
) -> Foretold:
    return foretold_of(model, objective, data, samples, rows, shares(data, rows["retain"]))


def unmeasured(workspace: Workspace, results: pd.DataFrame) -> dict[str, str]:
    rows = {name: workspace.read_manifest(name)["index"].tolist() for name in SETS}
    counted = {name: len(of) for name, of in drawn(rows, seed=workspace.seed).items()}
    return metrics.absent("sequences", counted)
