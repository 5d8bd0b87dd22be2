"""What judges of texts and of sequences share: some rows of each set, drawn by the seed."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.metrics import Subject, drawn
from imu.objectives import Samples
from tasks.files.workspace import Workspace
from tasks.judging import SETS


class Drawn:
    """kind: of ``imu.objectives``, whose ``samples`` are asked."""

    def __init__(
        self,
        workspace: Workspace,
        data: Any,
        about: Mapping[str, Any],
        device: torch.device,
        kind: ModuleType,
    ) -> None:
        self.workspace, self.data, self.device = workspace, data, device
        self.objective = kind.objective(about)
        self.every = {name: workspace.rows(name, data) for name in SETS}
        self.rows = drawn(self.every, seed=workspace.seed)
        self.samples: dict[str, Samples] = {
            name: kind.samples(data, chosen, about, device) for name, chosen in self.rows.items()
        }

    def manifest(self, name: str) -> pd.DataFrame:
        table = self.workspace.read_manifest(name)
        return table[table["index"].isin(self.rows[name])].reset_index(drop=True)

    def placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.device)

    def subject(self, model: nn.Module, outputs: Any, original: Any) -> Subject:
        return Subject(model=model, objective=self.objective, samples=self.samples, outputs=outputs)

    def absent(self, outputs: Any) -> dict[str, str]:
        return metrics.absent(outputs.objective, outputs.asked)
