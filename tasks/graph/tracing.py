"""What DVC keeps of what was made: every version in its cache and remotes, and from what."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.graph import lock
from tasks.graph.stages import opened

SMALL = 64  # bytes; fewer, such as `{}`, are equal by chance and say nothing of what made them
RUNS = "runs/"
MALFORMED = (AttributeError, KeyError, OSError, TypeError, ValueError, YAMLError)


class Made(NamedTuple):
    """One stage that ran once: content hashes by path. by: where DVC wrote that down.

    A folder below ``runs/`` is there with its files, as far as they are known. deps: but for small
    ones. small: hashes of small outs. torn: it cannot be read.
    """

    deps: dict[str, str]
    outs: dict[str, str]
    by: Path
    small: frozenset[str] = frozenset()
    torn: bool = False


def made(root: Path, workspaces: Collection[Path]) -> list[Made]:
    """What the ``dvc.lock`` of each workspace and the run cache of the clone ``root`` know."""
    found = []
    for file in (w / lock.FILE for w in workspaces):
        if file.is_file():
            found += _read(file, "stages")
    for cache in _caches(root):
        for file in sorted((cache / "runs").rglob("*")):
            if file.is_file():
                found += _read(file)
    folders: dict[str, dict[str, str]] = {}
    for one in found:
        for path, md5 in (*one.deps.items(), *one.outs.items()):
            if md5.endswith(".dir") and path.startswith(RUNS) and not folders.get(md5):
                at = one.by.parent / path if path in one.outs else None
                folders[md5] = _members(root, md5, at)
    return [_expanded(root, one, folders) for one in found]


def descend(made: Collection[Made], begin: Collection[str], kept: Collection[str]) -> set[str]:
    """Hashes of all that was made from ``begin``, by way of others, but not of ``kept``."""
    found = set(begin)
    while True:
        new = (
            {
                md5
                for one in made
                if not found.isdisjoint(one.deps.values())
                for md5 in one.outs.values()
            }
            - found
            - set(kept)
        )
        if not new:
            return found
        found |= new


def cached(root: Path, md5: str) -> list[Path]:
    """Files in the cache of the clone ``root`` with that content."""
    places = [
        place / md5[:2] / md5[2:]
        for cache in _caches(root)
        for place in (cache / "files" / "md5", cache)
    ]
    return [path for path in places if path.exists()]


def is_small(root: Path, md5: str) -> bool:
    """Whether so little is cached that other runs may well have made the same."""
    return any(path.stat().st_size < SMALL for path in cached(root, md5))


def in_remotes(
    root: Path, hashes: Collection[str], *, remove: bool = False
) -> Iterator[tuple[str, str]]:
    """Name of a remote and hash, of those that it has; or why it cannot be told, and "".

    remove: they are removed there.
    """
    with opened(root) as repo:
        for name in sorted(repo.config["remote"]):
            try:
                store = repo.cloud.get_remote_odb(name, "erase")
                for md5 in sorted(hashes):
                    path = store.oid_to_path(md5)
                    if store.fs.exists(path):
                        if remove:
                            store.fs.remove(path)
                        yield name, md5
            except Exception as error:  # each kind of remote has its own
                yield f"{name} ({type(error).__name__}: {error})", ""


def _caches(root: Path) -> list[Path]:
    from dvc.config import Config

    given = Config(str(root / ".dvc"))["cache"].get("dir")
    return [Path(given) if given else root / ".dvc" / "cache"]


def _read(file: Path, below: str = "") -> list[Made]:
    """Its stages, which lie ``below`` a key, or the one that it is."""
    try:
        content = YAML(typ="safe").load(file.read_text())
        stages = list(content[below].values()) if below else [content]
    except MALFORMED:
        return [Made({}, {}, file, torn=True)]  # as a kill may leave it
    return [_made(stage, file) for stage in stages]


def _made(stage: Mapping[str, Any], by: Path) -> Made:
    try:
        deps, outs = (
            [file for file in stage.get(name, []) if "md5" in file] for name in ("deps", "outs")
        )
        small = {_hash(f["md5"]) for f in (*deps, *outs) if f.get("size", SMALL) < SMALL}
        return Made(
            {str(f["path"]): _hash(f["md5"]) for f in deps if f["md5"] not in small},
            {str(f["path"]): _hash(f["md5"]) for f in outs},
            by,
            frozenset(small),
        )
    except MALFORMED:
        return Made({}, {}, by, torn=True)


def _hash(md5: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5):
        raise ValueError(f"{md5!r} is no content hash")
    return md5


def _expanded(root: Path, one: Made, folders: Mapping[str, Mapping[str, str]]) -> Made:
    def files(given: Mapping[str, str]) -> dict[str, str]:
        below = {
            f"{path}/{name}": md5
            for path, folder in given.items()
            for name, md5 in folders.get(folder, {}).items()
        }
        return {**given, **below}

    deps, outs = files(one.deps), files(one.outs)
    new = (deps.items() - one.deps.items()) | (outs.items() - one.outs.items())
    small = {md5 for _, md5 in new if is_small(root, md5)}
    deps = {path: md5 for path, md5 in deps.items() if path in one.deps or md5 not in small}
    return Made(deps, outs, one.by, one.small | small, one.torn)


def _members(root: Path, md5: str, at: Path | None) -> dict[str, str]:
    """Files of a folder: as DVC's cache has it, else as it lies ``at``, else none."""
    for file in cached(root, md5):
        try:
            return {str(f["relpath"]): _hash(f["md5"]) for f in json.loads(file.read_text())}
        except MALFORMED:
            continue
    if at is None or not at.is_dir():
        return {}
    files = {
        file.relative_to(at).as_posix(): hashlib.md5(file.read_bytes()).hexdigest()
        for file in sorted(at.rglob("*"))
        if file.is_file()
    }
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]  # as DVC does
    whole = hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    return files if whole == md5 else {}
