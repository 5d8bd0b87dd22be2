"""What a stage wants remembered, read back from its outputs on disk.

Because a record needs nothing but the disk, a stage can be logged later, again, or by a run that
restored it from DVC's cache.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Record:
    """params: nested. metrics: final values. curves: name -> (step, value) pairs.

    files: folder in MLflow -> local files. tables: path in MLflow -> table, in which an array
    (height, width) or (height, width, 3), uint8, is an image. model: a safetensors file from
    ``tasks``.
    manifests: role -> CSV of samples that the stage read or made.
    """

    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    model: Path | None = None
    manifests: dict[str, Path] = field(default_factory=dict)
