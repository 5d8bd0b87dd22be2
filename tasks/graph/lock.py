"""``dvc.lock`` as DVC leaves it: what each stage was made from, and what came out.

The key of a stage is the SHA-256 of what DVC records about its making: command, content hashes of
its dependencies, parameter values. Two stages with the same key have the same outputs, whether
they were computed or restored from a cache, as long as processor and packages are of one kind.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.files import artifacts
from tasks.files.params import item_of

FILE = "dvc.lock"
PATIENCE = 10.0  # seconds that DVC may take to write it: it writes in place


class LockError(RuntimeError):
    """``dvc.lock`` is torn."""


class Locked(NamedTuple):
    """What ``dvc.lock`` records of a stage. outputs: path -> content hash.

    stage, item: of its ``exec python -m tasks STAGE [ITEM]``.
    """

    stage: str
    item: str | None
    key: str
    outputs: dict[str, str]


def locked_stages(root: Path) -> Mapping[str, Locked]:
    """Every stage that ``dvc.lock`` records; {} when there is no lock yet.

    Raises LockError where it is torn, which is what a kill or a full disk may leave.
    """
    return _parsed(_read(root))


def stages_with(root: Path, names: Collection[str]) -> Mapping[str, Locked]:
    """As ``locked_stages``, when DVC has written ``names``: other processes of DVC write as well.

    Raises LockError where they do not come.
    """
    return _parsed(_read_with(root, names))


def keep(root: Path, names: Collection[str]) -> None:
    """Keep a copy of ``dvc.lock``, with the stages ``names``, for ``put_back``."""
    artifacts.write_bytes(_copy(root), _read_with(root, names))


def put_back(root: Path) -> None:
    """The copy that was kept takes the place of a torn ``dvc.lock``.

    Raises LockError where there is none.
    """
    if not _copy(root).is_file():
        raise LockError(f"{FILE} is torn: `git checkout {FILE}` puts back the last committed one")
    artifacts.write_bytes(root / FILE, _copy(root).read_bytes())


def not_reproduced(before: Mapping[str, Locked], after: Mapping[str, Locked]) -> list[str]:
    """Stages that were made again from the same inputs, and came out otherwise.

    Outputs that were not recorded before, as a cut may leave it, say nothing; nor do those that
    dvc.yaml does not name any more.
    """
    return [
        name
        for name, stage in after.items()
        if name in before
        and before[name].key == stage.key
        and any(
            stage.outputs.get(path, made) != made for path, made in before[name].outputs.items()
        )
    ]


def called(name: str, command: str) -> tuple[str, str | None]:
    """Stage and item of ``exec python -m tasks STAGE [ITEM]``, the command of the stage ``name``.

    Raises ParameterError where the item is not one.
    """
    words = command.replace('"', "").replace("$DVC_STAGE", name).split()
    return words[4], item_of(words[5]) if len(words) > 5 else None


def joint_key(keys: Mapping[str, str]) -> str:
    """One key for several stages: equal if and only if the keys of all of them are."""
    return hashlib.sha256(json.dumps(dict(keys), sort_keys=True).encode()).hexdigest()


def _read(root: Path) -> bytes:
    path = root / FILE
    return path.read_bytes() if path.is_file() else b"stages: {}"


def _read_with(root: Path, names: Collection[str]) -> bytes:
    deadline = monotonic() + PATIENCE
    while True:
        content = _read(root)
        try:
            if not (missing := sorted(set(names) - _parsed(content).keys())):
                return content
            problem = f"{FILE} does not record {', '.join(missing)}"
        except LockError as error:
            problem = str(error)
        if monotonic() > deadline:
            raise LockError(problem)
        sleep(0.05)


@lru_cache(maxsize=2)  # a run reads the same lock many times
def _parsed(content: bytes) -> Mapping[str, Locked]:
    try:
        stages = YAML(typ="safe").load(content)["stages"]
        return {name: _locked(name, stage) for name, stage in stages.items()}
    except (YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise LockError(
            f"{FILE} is torn, as a kill or a full disk may leave it ({type(error).__name__}): "
            f"`git checkout {FILE}` puts back the last committed one"
        ) from error


def _copy(root: Path) -> Path:
    return root / ".dvc" / "tmp" / f"{FILE}.whole"


def _locked(name: str, stage: dict[str, Any]) -> Locked:
    def hashes(files: Iterable[dict[str, Any]]) -> dict[str, str]:
        return {file["path"]: file["md5"] for file in files}

    content = {
        "cmd": stage["cmd"],
        "deps": hashes(stage.get("deps", [])),
        "params": stage.get("params", {}),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Locked(*called(name, stage["cmd"]), key, hashes(stage.get("outs", [])))
