"""Retrain from scratch on the retain set: the reference, and others by other seeds."""

from dataclasses import dataclass

import pandas as pd

from imu import training
from imu.bounds import SEED, check_fields
from tasks import train
from tasks.files import artifacts, params
from tasks.files.workspace import NOT_RETRAINED, Workspace


@dataclass(frozen=True, kw_only=True)
class Config:
    seed_offset: int  # added to the seed of the original model; 0 gives the reference

    def __post_init__(self) -> None:
        check_fields(self, seed_offset=SEED)


def run(workspace: Workspace, item: str) -> float | None:
    out = workspace.runs / "retrain" / item
    if not workspace.original.retrain:
        artifacts.write_tensors(out / "model.safetensors", {}, {"why": NOT_RETRAINED})
        artifacts.write_table(out / "curve.csv", pd.DataFrame(columns=training.Epoch._fields))
        artifacts.write_json(out / "metrics.json", {})
        print(NOT_RETRAINED)
        return None
    return train.fit(workspace, "retain", out, _seed(workspace, item))


def _seed(workspace: Workspace, item: str) -> int:
    return workspace.seed + params.load(workspace.root, f"retrain.{item}", Config).seed_offset
