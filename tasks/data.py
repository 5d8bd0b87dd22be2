"""Raw data: written where it is missing, and held against ``data.dvc``."""

import subprocess

from imu import discovery
from tasks import params
from tasks.artifacts import ArtifactError
from tasks.workspace import Workspace

POINTER = "data.dvc"


def prepare(workspace: Workspace) -> None:
    """Write the data set of ``params.yaml`` into ``data/`` if it is not there; check ``data.dvc``.

    Raises ArtifactError when ``data/`` is not what ``data.dvc`` records. Nothing is overwritten.
    """
    name = params.section(workspace.root, "split.dataset")
    folder = workspace.root / "data" / name
    if not folder.exists():
        discovery.load("imu.datasets", name).write(folder)
        print(f"data: wrote {folder}")
    # Without -f, DVC takes the data into its cache only if their hash is the recorded one.
    check = subprocess.run(
        ["dvc", "commit", "-q", POINTER],
        cwd=workspace.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if check.returncode:
        raise ArtifactError(
            f"data/ differs from what {POINTER} records. Restore it with "
            f"`git checkout {POINTER} && dvc checkout -f {POINTER}`; if the change is meant, "
            "record it with `dvc add data`"
        )
    # `dvc repro` rewrites the pointer of changed data; what a data set pins itself still tells.
    discovery.load("imu.datasets", name).load(folder)
    print(f"data/ is what {POINTER} records")
