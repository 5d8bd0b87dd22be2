"""What DVC keeps of what was made: every version in its cache and remotes, and from what."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

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
    """What the ``dvc.lock`` of each workspace knows, and the run caches of ``root`` and remotes."""
    found = []
    for file in (w / lock.FILE for w in workspaces):
        if file.is_file():
            found += _read(file.read_bytes(), file, "stages")
    for cache in _caches(root):
        for file in sorted((cache / "runs").rglob("*")):
            if file.is_file():
                found += _read(file.read_bytes(), file)
    found += _runs_in_remotes(root)
    folders: dict[str, dict[str, str]] = {}
    for one in found:
        for path, md5 in (*one.deps.items(), *one.outs.items()):
            if md5.endswith(".dir") and path.startswith(RUNS) and not folders.get(md5):
                at = one.by.parent / path if path in one.outs else None
                folders[md5] = _members(root, md5, at)
    away = contents(root, [md5 for md5, files in folders.items() if not files])
    folders |= {md5: _listed(content) for md5, content in away.items()}
    members = {md5 for files in folders.values() for md5 in files.values()}
    unknown = [md5 for md5 in members if not cached(root, md5)]
    small = {md5 for _, md5, is_small in in_remotes(root, unknown) if is_small}
    return [_expanded(root, one, folders, small) for one in found]


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
) -> Iterator[tuple[str, str, bool]]:
    """Name of a remote, hash, and whether it is small, of those that it has; or why it cannot be
    told, and "".

    remove: they are removed there, but for small ones, which others that share it may need.
    """

    def found(name: str, store: Any) -> Iterator[tuple[str, str, bool]]:
        for md5 in sorted(hashes):
            path = store.oid_to_path(md5)
            if store.fs.exists(path):
                small = store.fs.size(path) < SMALL
                if remove and not small:
                    store.fs.remove(path)
                yield name, md5, small

    yield from _each_remote(root, found, lambda name, why: (f"{name} ({why})", "", False))


def contents(root: Path, hashes: Collection[str]) -> dict[str, bytes]:
    """What remotes have of them; a remote that does not answer is named by ``in_remotes``."""

    def read(name: str, store: Any) -> Iterator[tuple[str, bytes]]:
        for md5 in hashes:
            if store.fs.exists(path := store.oid_to_path(md5)):
                yield md5, store.fs.cat_file(path)

    return dict(_each_remote(root, read, lambda *_: ("", b""))) if hashes else {}


def storages(root: Path) -> list[str]:
    """Remotes that are no folders: what may keep versions that were overwritten or removed."""
    from dvc.config import Config

    remotes = Config(str(root / ".dvc"))["remote"].items()
    return [n for n, about in remotes if urlparse(about["url"]).scheme not in ("", "file")]


def _runs_in_remotes(root: Path) -> list[Made]:
    """What their run caches know that the clone's does not."""
    known = {file.name for cache in _caches(root) for file in (cache / "runs").glob("*/*/*")}

    def read(name: str, store: Any) -> Iterator[list[Made]]:
        runs = store.fs.join(store.path, "runs")
        for path in store.fs.find(runs) if store.fs.exists(runs) else ():
            if store.fs.name(path) not in known:
                yield _read(store.fs.cat_file(path), Path(f"DVC remote {name}: {path}"))

    def unread(name: str, why: str) -> list[Made]:
        return [Made({}, {}, Path(f"DVC remote {name}: its run cache ({why})"), torn=True)]

    return [one for found in _each_remote(root, read, unread, legacy=True) for one in found]


def _each_remote(
    root: Path,
    act: Callable[[str, Any], Iterator[Any]],
    failed: Callable[[str, str], Any],
    *,
    legacy: bool = False,
) -> Iterator[Any]:
    """What ``act`` finds in each, by name and object store. failed: by name and why."""
    with opened(root) as repo:
        for name in sorted(repo.config["remote"]):
            try:
                kind = "md5-dos2unix" if legacy else "md5"  # run caches lie where DVC 2 had all
                store = repo.cloud.get_remote_odb(name, "erase", hash_name=kind)
                if "http" in store.fs.protocol:  # to which all that does not answer is missing
                    raise OSError("what lies behind HTTP cannot be listed or removed")
                yield from act(name, store)
            except Exception as error:  # each kind of remote has its own
                yield failed(name, f"{type(error).__name__}: {error}")


def _caches(root: Path) -> list[Path]:
    from dvc.config import Config

    given = Config(str(root / ".dvc"))["cache"].get("dir")
    return [Path(given) if given else root / ".dvc" / "cache"]


def _read(content: bytes, by: Path, below: str = "") -> list[Made]:
    """Its stages, which lie ``below`` a key, or the one that it is."""
    try:
        parsed = YAML(typ="safe").load(content.decode())
        stages = list(parsed[below].values()) if below else [parsed]
    except MALFORMED:
        return [Made({}, {}, by, torn=True)]  # as a kill may leave it
    return [_made(stage, by) for stage in stages]


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


def _expanded(
    root: Path, one: Made, folders: Mapping[str, Mapping[str, str]], known: Collection[str]
) -> Made:
    """With the files of its folders. known: small ones that are not cached."""

    def files(given: Mapping[str, str]) -> dict[str, str]:
        below = {
            f"{path}/{name}": md5
            for path, folder in given.items()
            for name, md5 in folders.get(folder, {}).items()
        }
        return {**given, **below}

    deps, outs = files(one.deps), files(one.outs)
    new = (deps.items() - one.deps.items()) | (outs.items() - one.outs.items())
    small = {md5 for _, md5 in new if md5 in known or is_small(root, md5)}
    deps = {path: md5 for path, md5 in deps.items() if path in one.deps or md5 not in small}
    return Made(deps, outs, one.by, one.small | small, one.torn)


def _members(root: Path, md5: str, at: Path | None) -> dict[str, str]:
    """Files of a folder: as DVC's cache has it, else as it lies ``at``, else none."""
    for file in cached(root, md5):
        if files := _listed(file.read_bytes()):
            return files
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


def _listed(content: bytes) -> dict[str, str]:
    try:
        return {str(f["relpath"]): _hash(f["md5"]) for f in json.loads(content)}
    except MALFORMED:
        return {}
