"""Cells: workspaces of their own, which never touch the canonical outputs."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML

from flows.running.holding import WorkspaceBusyError, only_run
from tasks.files import artifacts, params
from tasks.files.commit import git_tags
from tasks.files.workspace import OWN
from tasks.graph.configuration import configure_as

FOLDER = ".cells"
NEEDED = ("imu/", "tasks/", "flows/", "requests/", f"{OWN}/", "data.dvc", "dvc.yaml", ".dvcignore")


class CommitError(RuntimeError):
    """A clone lacks the commit that was asked for, or differs from it."""


class LinkError(RuntimeError):
    """A link in ``own/`` leads nowhere, or back to where it lies."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run: a name for people, and the parameters that differ, by dotted path.

    commit: whose files are taken; "" for those of the clone as they lie there.
    number: of the folder, where several runs of one clone work on the same at the same time.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    number: int = 1

    def folder(self, root: Path) -> Path:
        """Named by the content of the changes, so a sweep that is run again finds its cells."""
        content = json.dumps(self.changes, sort_keys=True) + self.commit
        name = hashlib.sha256(content.encode()).hexdigest()[:12]
        return root / FOLDER / (name if self.number == 1 else f"{name}-{self.number}")


@contextmanager
def unused(root: Path, cell: Cell) -> Iterator[Cell]:
    """``cell`` with the first number whose folder no other run of the clone works in.

    Two runs of DVC in one folder refuse each other what they read and write.
    """
    for number in count(1):
        free = replace(cell, number=number)
        with ExitStack() as held:
            try:
                held.enter_context(only_run(free.folder(root)))
            except WorkspaceBusyError:
                continue
            yield free
            return


def prepare(root: Path, cell: Cell) -> Path:
    """Lay out the cell's workspace: code, changed parameters, the clone's DVC cache and remotes.

    Outputs of an earlier try stay; DVC decides what of them still holds. Raises CommitError when
    the commit is not to be had, ParameterError for a change of what is not there, or to what DVC
    may not be handed, and LinkError for a link that leads nowhere.
    """
    folder = cell.folder(root)
    files = dict(_committed(root, cell.commit) if cell.commit else _present(root))
    if params.FILE not in files:
        raise CommitError(f"{cell.commit or root} has no {params.FILE}")
    parameters = params.changed(YAML(typ="safe").load(files.pop(params.FILE)), cell.changes)
    params.require_safe(folder, parameters)  # before DVC sees them, and before anything is made
    own = [] if cell.commit else [*_brought(root / OWN)]  # may be kept out of git
    names = {*files, params.FILE, *(str(path.relative_to(root)) for path in own)}
    files = {name: content for name, content in files.items() if name.startswith(NEEDED)}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # two workers of one clone may want the same cell
        for name, content in (files | {params.FILE: _dumped(parameters)}).items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                artifacts.write_bytes(folder / name, content)
        if not cell.commit:
            shutil.copytree(root / OWN, folder / OWN, dirs_exist_ok=True)
            split = parameters["split"]
            for name in (split["by_ids"]["file"], split["forgotten_before"]):
                if (root / name).is_file():
                    artifacts.write_bytes(folder / name, (root / name).read_bytes())
                    names.add(name)
        for path in (
            p for part in NEEDED if part.endswith("/") for p in (folder / part).rglob("*")
        ):
            name = str(path.relative_to(folder))
            if path.is_file() and path.suffix != ".pyc" and name not in names:
                path.unlink()  # left by an earlier try, and found by its name
        configure_as(root, folder)
    return folder


def clean_commit(root: Path) -> str:
    """The commit that lies in the clone. Raises CommitError where tracked files differ from it."""
    tags = git_tags(root)
    if not tags:
        raise CommitError(f"{root} is no git clone: workers run commits")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", *NEEDED).decode().split()
    if new:
        raise CommitError(f"{new[0]} in {root} is in no commit, and workers run commits: commit it")
    if tags["git.dirty"] == "true":
        raise CommitError(
            f"files in {root} differ from its commit {tags['git.commit'][:12]}, and workers run "
            "commits: commit them, or give what differs as parameters of the run"
        )
    return tags["git.commit"]


def fingerprint(root: Path) -> str:
    """Of all that cells are laid out from, besides parameters, as it lies in the clone."""
    content = hashlib.sha256()
    own = _brought(root / OWN)
    brought = {str(path.relative_to(root)): path.read_bytes() for path in own}
    for name, file in sorted((dict(_present(root)) | brought).items()):
        if name.startswith(NEEDED) and not name.startswith("flows/"):
            content.update(f"{name} {len(file)}\n".encode() + file)
    return content.hexdigest()


def _brought(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file in a folder, those of linked folders as well.

    above: the folders that lead here, as they lie. Raises LinkError.
    """
    here = folder.resolve()
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():
            raise LinkError(f"{path} is a link to {path.readlink()}, which is not there")
        if path.is_dir():
            if any(one.is_relative_to(path.resolve()) for one in (here, *above)):
                raise LinkError(f"{path} is a link to {path.readlink()}, in which it lies itself")
            yield from _brought(path, (*above, here))
        elif path.is_file():
            yield path


def _present(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that git does not ignore."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():
            yield name, (root / name).read_bytes()


def _committed(root: Path, commit: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of ``commit``, which is fetched where it is missing."""

    def known() -> bool:
        call = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
        return subprocess.run(call, cwd=root, capture_output=True).returncode == 0

    if not known():
        fetched = subprocess.run(
            ["git", "fetch", "--quiet", "--all"], cwd=root, capture_output=True, text=True
        )
        if not known():
            raise CommitError(
                f"{root} has no commit {commit}, and neither has what it fetches from: push it"
                + (f" ({fetched.stderr.strip()})" if fetched.returncode else "")
            )
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", commit))) as tar:
        for member in tar:
            try:
                file = tar.extractfile(member)  # of a link, what it leads to in the commit
            except KeyError:
                file = None
            if file:
                yield member.name, file.read()
            elif member.issym() and member.name.startswith(f"{OWN}/"):
                raise CommitError(
                    f"{member.name} is a link to {member.linkname}, whose files the commit does "
                    "not have under that name: commit the files themselves"
                )


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout


def _dumped(parameters: dict[str, Any]) -> bytes:
    text = io.BytesIO()
    YAML(typ="safe").dump(parameters, text)
    return text.getvalue()
