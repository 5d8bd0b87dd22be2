"""Stages and runs by name: module, name in DVC, and the pipeline run that a process belongs to.

A stage belongs to a pipeline run, named by a token: the Prefect flow hands it on as IMU_PARENT;
under plain ``dvc repro`` it is the DVC process itself.
"""

import json
import os
import socket
from pathlib import Path
from types import ModuleType

import psutil

from imu import discovery
from tasks.files import params
from tasks.files.workspace import Workspace
from tasks.graph import lineage
from tasks.warm import CALLER

TOKEN, TAGS = "IMU_PARENT", "IMU_TAGS"


def module_of(stage: str) -> ModuleType:
    """The module of a stage: a file in ``tasks`` with ``run`` and ``record``."""
    known = [n for n in discovery.names("tasks") if not n.startswith("_")]
    module = discovery.load("tasks", stage) if stage in known else None
    if not (hasattr(module, "run") and hasattr(module, "record")):
        raise params.ParameterError(f"there is no stage {stage!r}; dvc.yaml names the stages")
    assert module is not None
    return module


def name_in_dvc(workspace: Workspace, stage: str, item: str | None) -> str:
    """Name of a stage in ``dvc.yaml``, such as "unlearn@imu"."""
    if "DVC_STAGE" in os.environ:
        return os.environ["DVC_STAGE"]
    for name, call in lineage.commands(workspace.root).items():
        if call == (stage, item):
            return name
    items = [
        call[1] or "" for call in lineage.commands(workspace.root).values() if call[0] == stage
    ]
    raise params.ParameterError(
        f"dvc.yaml runs no item {item or ''!r} of the stage {stage}: choose from {', '.join(items)}"
    )


def token() -> tuple[str, bool]:
    """Token of the pipeline run this process belongs to, and whether this process closes it."""
    if TOKEN in os.environ:
        return os.environ[TOKEN], False
    process = psutil.Process(int(os.environ[CALLER]) if CALLER in os.environ else None)
    for ancestor in process.parents():
        if any(Path(part).name == "dvc" for part in ancestor.cmdline()[:2]):
            process = ancestor
            break
    return f"dvc-{socket.gethostname()}-{process.pid}-{process.create_time():.0f}", True


def run_tags(workspace: Workspace) -> dict[str, str]:
    return lineage.git_tags(workspace.root) | json.loads(os.environ.get(TAGS, "{}"))
