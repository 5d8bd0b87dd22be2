"""Raw data: written where it is missing, and held against ``params.yaml`` and ``data.dvc``."""

import subprocess
from contextlib import chdir
from pathlib import Path

from imu import discovery
from imu.datasets import Source, made_from
from tasks import params
from tasks.artifacts import ArtifactError
from tasks.workspace import Workspace

POINTER = "data.dvc"


def prepare(workspace: Workspace) -> None:
    """Write the data set of ``params.yaml`` into ``data/`` if it is not there; check ``data.dvc``.

    A relative ``data.path`` starts at the workspace.

    Raises ArtifactError when the data set was made from another path or size than ``params.yaml``
    says, or ``data/`` is not what ``data.dvc`` records. Nothing is overwritten.
    """
    root = workspace.root
    name = params.section(root, "split.dataset")
    source = params.load(root, "data", Source)
    module = discovery.load("imu.datasets", name)
    folder = root / "data" / name
    is_new = not folder.exists()
    if is_new:
        # So that the data set records the path as params.yaml has it, wherever the workspace lies.
        with chdir(root):
            module.write(Path("data", name), source)
        print(f"data: wrote {folder}")
    require_source(folder, source)
    # Without -f, DVC takes the data into its cache only if their hash is the recorded one.
    check = subprocess.run(
        ["dvc", "--wait-for-lock", "commit", "-q", POINTER],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if check.returncode and is_new:
        raise ArtifactError(
            f"data/{name} is new, and {POINTER} does not record it yet: `dvc add data` records it"
        )
    if check.returncode:
        raise ArtifactError(
            f"data/ differs from what {POINTER} records. Restore it with "
            f"`git checkout {POINTER} && dvc checkout -f {POINTER}`; if a data set is new or a "
            "change is meant, record it with `dvc add data`"
        )
    # `dvc repro` rewrites the pointer of changed data; what a data set pins itself still tells.
    module.load(folder)
    print(f"data/ is what {POINTER} records")


def require_source(folder: Path, source: Source) -> None:
    """Raises ArtifactError when ``folder`` was made from another path or size than ``source``."""
    made = made_from(folder)
    if made is not None and (Path(made.path), made.size) != (Path(source.path), source.size):
        raise ArtifactError(
            f"{folder} was made from data.path {made.path} with data.size {made.size}, but "
            f"{params.FILE} says {source.path} and {source.size}. Put the old values back, or "
            f"remove that folder and run `make data` to have it made again"
        )
