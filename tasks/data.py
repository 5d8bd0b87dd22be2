"""Raw data: written where it is missing, and held against ``params.yaml`` and ``data.dvc``."""

import subprocess
from contextlib import chdir
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from imu import discovery
from imu.datasets import Dataset, Source, described, made_from, settings
from imu.datasets.common import origin
from tasks.files import artifacts, forgotten, params
from tasks.files.artifacts import ArtifactError
from tasks.files.workspace import Workspace, digest

POINTER = "data.dvc"


def prepare(workspace: Workspace, clone: Path | None = None) -> None:
    """Write the data set of ``params.yaml`` into ``data/`` if it is not there; check ``data.dvc``.

    A relative ``data.path`` starts at the workspace. What the data are is printed either way.
    clone: of a workspace that was laid out from it; the path starts there, and what is new is
    recorded, as nobody else looks after that workspace.

    Raises ArtifactError when the data set was made from something else than ``params.yaml`` says,
    or ``data/`` is not what ``data.dvc`` records, and ValueError when samples that were forgotten
    have come back. Nothing is overwritten.
    """
    root = workspace.root
    name = params.section(root, "split.dataset")
    source = params.load(root, "data", Source)
    module = discovery.load("imu.datasets", name)
    folder = root / "data" / name
    is_new = not folder.exists()
    if is_new:
        # So that the data set records the path as params.yaml has it, wherever the workspace lies.
        with chdir(clone or root):
            module.write(folder.absolute(), source)
        print(f"data: wrote {folder}")
        print(described(folder, module.load(folder)))
    require_source(folder, source)
    if is_new and clone and (done := _dvc(root, "add", "-q", "data")).returncode:
        raise ArtifactError(f"data/{name} could not be recorded: {done.stderr.strip()}")
    differs = _differs(root)
    if differs and is_new:
        raise ArtifactError(
            f"data/{name} is new, and {POINTER} does not record it yet: `dvc add data` records it"
        )
    if differs:
        raise ArtifactError(
            f"data/ differs from what {POINTER} records. Restore it with "
            f"`git checkout {POINTER} && dvc checkout -f {POINTER}`; if a data set is new or a "
            "change is meant, record it with `dvc add data`"
        )
    # `dvc repro` rewrites the pointer of changed data; what a data set pins itself still tells.
    found = module.load(folder)
    file = params.section(root, "split.forgotten_before")
    forgotten_before(workspace, samples_of(found), file)
    if not is_new:
        print(described(folder, found))
    if made_from(folder) and origin.changed(folder, (clone or root) / source.path):
        print(
            f"WARNING: {source.path} changed after data/{name} was made from it; the data are "
            f"those of before. To take the change over, remove data/{name}, run `make data` and "
            "record it with `dvc add data`"
        )
    print(f"data/ is what {POINTER} records")


def samples_of(data: Dataset) -> pd.DataFrame:
    """All samples there are: columns id, index, label, sha256, and what stays together."""
    return pd.DataFrame(
        {
            "id": data.ids,
            "index": np.arange(len(data.labels)),
            "label": data.labels,
            "sha256": [digest(data, row) for row in range(len(data.labels))],
            **({data.together: data.attributes[data.together]} if data.together else {}),
        }
    )


def forgotten_before(workspace: Workspace, samples: pd.DataFrame, file: str) -> pd.DataFrame:
    """Ids of those that served requests name. Raises ValueError where one has come back.

    file: the parameter split.forgotten_before.
    """
    return forgotten.left_out(samples, listed(workspace, "forgotten_before", file), file)


def listed(workspace: Workspace, name: str, file: str) -> pd.DataFrame:
    """The table of ids in ``file``, which the parameter ``split.<name>`` gives."""
    path = params.require_inside(workspace.root, f"split.{name}", file)
    return artifacts.read_given(path, **dict.fromkeys(forgotten.COLUMNS, "str"))


def _differs(root: Path) -> bool:
    """Whether ``data/`` is not what ``data.dvc`` records; if it is, DVC's cache has it."""
    # Without -f, DVC takes the data into its cache only if their hash is the recorded one.
    done = _dvc(root, "commit", POINTER)
    if done.returncode and "is busy" in done.stderr:
        # Stages are reading the data: whatever started them has put the data into the cache.
        done = _dvc(root, "status", "-q", POINTER)
    return bool(done.returncode)


def _dvc(root: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", "--wait-for-lock", command, *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def require_source(folder: Path, source: Source) -> None:
    """Raises ArtifactError when ``folder`` was made from something else than ``source``."""
    made = made_from(folder)
    if made is None:
        return
    was, now = (asdict(replace(one, path=str(Path(one.path)))) for one in (made, source))
    differ = [name for name in settings(folder) if was[name] != now[name]]
    if differ:
        before, after = (
            ", ".join(f"data.{name} {of[name]!r}" for name in differ) for of in (was, now)
        )
        raise ArtifactError(
            f"{folder} was made from {before}, but {params.FILE} has {after}. Put the old values "
            "back, or remove that folder and run `make data` to have it made again"
        )
