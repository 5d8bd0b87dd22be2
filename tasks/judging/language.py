"""Texts: the probability of every token of the true answers, and what the model answers itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.datasets.common.texts import Texts
from imu.metrics import Said, asked_of, drawn, means, said_of
from imu.metrics.truth_ratio import log_ratios
from imu.objectives import Objective, Samples, answered, language
from imu.objectives.language import Language
from tasks.files.workspace import Workspace
from tasks.judging import SETS
from tasks.judging._drawn import Drawn


class Judge(Drawn):
    def __init__(
        self, workspace: Workspace, data: Texts, about: Mapping[str, Any], device: torch.device
    ) -> None:
        super().__init__(workspace, data, about, device, language)
        self.longest: int = about["config"]["context"]

    def outputs(self, model: nn.Module) -> Said:
        return said_of(
            model,
            self.objective,
            self.objective.tokens,
            self.data,
            self.rows,
            longest=self.longest,
            seed=self.workspace.seed,
        )

    def answers(self, outputs: Said, name: str) -> pd.DataFrame:
        asked = len(outputs.answers[name])
        return pd.DataFrame(
            {
                "asked": outputs.given.get(name, outputs.prompts[name]),
                "wanted": outputs.wanted.get(name, outputs.answers[name]),
                "said": outputs.generated.get(name, ("",) * asked),
                "right": means(outputs.right[name]),
                "confidence": np.exp(outputs.log_probability(name)),
                "log_ratio": _log_ratios(outputs, name),
            }
        )


def _log_ratios(outputs: Said, name: str) -> np.ndarray:
    """Logarithm of each sample's truth ratio, NaN where it has no wrong answers: (n,)."""
    values = np.full(len(outputs.answers[name]), np.nan)
    if name in outputs.wrong:
        there = np.isfinite(outputs.wrong[name]).any(1)
        values[there] = log_ratios(outputs, name) if there.any() else []
    return values


def held(
    reference: nn.Module,
    objective: Objective,
    samples: Mapping[str, Samples],
    classes: tuple[int, ...],
) -> Callable[[nn.Module], tuple[dict[str, float], float]]:
    """The gap is a mean over P, the mean answer probability in %, of three sets, and over dP, the
    mean distance of each sample's, of the forget and the retain set.

    P alone would pass a model that has lost half of the answers and kept the others.
    """

    def probabilities(model: nn.Module) -> dict[str, torch.Tensor]:
        return {
            name: 100 * (-answered(model, objective, of).losses).exp()
            for name, of in samples.items()
        }

    aim = probabilities(reference)

    def of(model: nn.Module) -> tuple[dict[str, float], float]:
        found = probabilities(model)
        apart = {name: found[name] - aim[name] for name in found}
        paired = {f"dP_{name}": apart[name].abs().mean() for name in ("forget", "retain")}
        gaps = [*paired.values(), *(values.mean().abs() for values in apart.values())]
        told = {f"P_{name}": values.mean() for name, values in found.items()} | paired
        return {name: value.item() for name, value in told.items()}, torch.stack(gaps).mean().item()

    return of


def found(
    model: nn.Module,
    objective: Language,
    samples: Mapping[str, Samples],
    data: Texts,
    rows: Mapping[str, list[int]],
    about: Mapping[str, Any],
    classes: tuple[int, ...],
) -> Said:
    longest = about["config"]["context"]
    return said_of(model, objective, objective.tokens, data, rows, longest=longest)


def unmeasured(workspace: Workspace, results: pd.DataFrame) -> dict[str, str]:
    data = workspace.dataset()
    assert isinstance(data, Texts)
    rows = {name: workspace.read_manifest(name)["index"].tolist() for name in SETS}
    asked = asked_of(data, drawn(rows, seed=workspace.seed))
    return metrics.absent(data.objective, asked)
