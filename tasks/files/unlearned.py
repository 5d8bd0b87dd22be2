"""What the stage of a method left: why there is no model, and the weights along the way."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.files import artifacts
from tasks.files.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor


def why_failed(workspace: Workspace, item: str) -> str:
    """Why there is no model of ``item``, although it ran; "" where there is one."""
    return str(artifacts.read_about(workspace.model(f"unlearn/{item}")).get("failure", ""))


def snapshots(path: Path, original: dict[str, "Tensor"]) -> list[tuple[int, dict[str, "Tensor"]]]:
    """Step and full state of every stored snapshot, in order."""
    tensors, about = artifacts.read_tensors(path)
    found = []
    for step in about["steps"]:
        prefix = f"{step}/"
        changed = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        found.append((step, original | changed))
    return found
