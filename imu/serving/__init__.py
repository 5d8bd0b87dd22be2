"""A stored model, loaded where there is no pipeline: from its one file, or by MLflow.

A kind of problem per file, as in ``imu/objectives``; it offers ``Model(path)`` with ``predict``;
``signature(about)``, what that takes and gives, in MLflow's JSON; and ``packages(about)``, needed
beside torch. A file imports torch where it predicts: whoever logs a model asks it for the other two
alone. ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` call ``_load_pyfunc``.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imu import discovery

if TYPE_CHECKING:
    from torch import nn


def load(path: Path) -> Any:
    """The model of a ``model.safetensors``. Raises ValueError where ``path`` is something else."""
    about, _ = _read(path, weights=False)
    return discovery.load("imu.serving", about["objective"]).Model(path)


def network(path: Path) -> "tuple[nn.Module, dict[str, Any]]":
    """The network of a ``model.safetensors`` in evaluation mode, and its description."""
    about, tensors = _read(path)
    module = discovery.load("imu.models", about["network"])
    kind = discovery.load("imu.objectives", about["objective"])
    model: nn.Module = kind.built(module, module.Config(**about["config"]), about).eval()
    model.load_state_dict(tensors)
    return model, about


def tensor(dtype: str, shape: list[int]) -> str:
    """An array in MLflow's JSON; -1: of any length."""
    return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])


def _read(path: Path, *, weights: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["about"])
            found = {name: file.get_tensor(name) for name in (file.keys() if weights else ())}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no model.safetensors of imu: {error}") from error
    tied = about.get("tied", {}) if weights else {}  # further name -> the name it is under
    return about, found | {name: found[stored] for name, stored in tied.items()}


def _load_pyfunc(path: str) -> Any:
    return load(Path(path))
