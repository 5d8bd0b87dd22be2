"""Cells of a sweep: workspaces of their own, which never touch the canonical outputs."""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks import artifacts, params
from tasks.workspace import OWN

FOLDER = ".cells"
REPLACED = ("network", "retrain", "unlearn")  # sections whose keys depend on what they name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A name for people, and the parameters that differ from ``params.yaml``, by dotted path."""

    name: str
    changes: dict[str, Any]

    def folder(self, root: Path) -> Path:
        """Named by the content of the changes, so a sweep that is run again finds its cells."""
        content = json.dumps(self.changes, sort_keys=True).encode()
        return root / FOLDER / hashlib.sha256(content).hexdigest()[:12]


def prepare(root: Path, cell: Cell) -> Path:
    """Lay out the cell's workspace: this code, changed parameters, the shared DVC cache.

    Outputs of an earlier try stay; DVC decides what of them still holds.
    """
    folder = cell.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    needed = ("imu/", "tasks/", "flows/", "requests/", "data.dvc", "dvc.yaml", ".dvcignore")
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(needed) and (root / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
    # What the user brings may be kept out of git.
    shutil.copytree(root / OWN, folder / OWN, dirs_exist_ok=True)
    content = params.read(root)
    for path, value in cell.changes.items():
        *parents, last = path.split(".")
        section: Any = content
        for part in parents:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise params.ParameterError(f"{params.FILE} has no {path!r} to change")
        if isinstance(value, dict) and not parents and path not in REPLACED:
            raise params.ParameterError(
                f"{path!r} cannot be replaced whole: name what changes, such as "
                f"'{path}.{next(iter(value), '')}'"
            )
        section[last] = value
    with artifacts.replacing(folder / params.FILE) as temporary:
        YAML(typ="safe").dump(content, temporary)
    artifacts.write_text(
        folder / ".dvc" / "config",
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        f"[cache]\n    dir = {os.path.relpath(root / '.dvc' / 'cache', folder / '.dvc')}\n",
    )
    return folder
