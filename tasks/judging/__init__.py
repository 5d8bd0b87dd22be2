"""What a model is asked before it is judged; a kind of problem per file, as in ``imu/objectives``.

A file offers ``Judge(workspace, data, about, device)``, where about is the original's description,
and ``found(model, objective, samples, data, rows, about, classes)``: what a model says of a few
rows of each set, for a rehearsal; ``held(reference, objective, samples, classes)``: a function
of a model that tells its numbers and its gap to the reference in points, for a search; and
``unmeasured(workspace, results)``: metric -> why no model has it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd
from torch import nn

from imu.metrics import Subject
from imu.objectives import Objective, Samples

SETS = ("forget", "retain", "validation", "test")


class Judge(Protocol):
    @property
    def objective(self) -> Objective: ...

    @property
    def samples(self) -> Mapping[str, Samples]:
        """What is asked, of each of ``SETS``."""

    def manifest(self, name: str) -> pd.DataFrame:
        """The rows of a set that are asked."""

    def placed(self, model: nn.Module) -> nn.Module:
        """The network on the device, as it answers fastest."""

    def outputs(self, model: nn.Module) -> Any:
        """What a model says, as its metrics take it."""

    def subject(self, model: nn.Module, outputs: Any, original: Any) -> Subject:
        """A model under attack. outputs, original: what it and the original model say."""

    def absent(self, outputs: Any) -> dict[str, str]:
        """Metric -> why it cannot be measured."""

    def answers(self, outputs: Any, name: str) -> pd.DataFrame:
        """A row per sample: what is said of it, how right that is, in [0, 1], and the confidence in
        the truth."""
