"""What DVC keeps of what was made: every version in its cache and remotes, and from what."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.graph import lock
from tasks.graph.stages import opened


class Made(NamedTuple):
    """One stage that ran once: content hashes by path. by: where DVC wrote that down."""

    deps: dict[str, str]
    outs: dict[str, str]
    by: Path


def made(root: Path, workspaces: Collection[Path]) -> list[Made]:
    """What the ``dvc.lock`` of each workspace and the run cache of the clone ``root`` know."""
    found = []
    for file in (w / lock.FILE for w in workspaces):
        if file.is_file():
            stages = _read(file).get("stages", {})
            found += [_made(stage, file) for stage in stages.values()]
    for cache in _caches(root):
        found += [_made(_read(f), f) for f in sorted((cache / "runs").rglob("*")) if f.is_file()]
    return found


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


def _read(file: Path) -> Mapping[str, dict[str, Any]]:
    try:
        content: Mapping[str, dict[str, Any]] = YAML(typ="safe").load(file.read_text())
    except (YAMLError, UnicodeDecodeError):
        return {}  # torn, as a kill may leave it
    return content


def _made(stage: Mapping[str, Any], by: Path) -> Made:
    def hashes(name: str) -> dict[str, str]:
        return {file["path"]: file["md5"] for file in stage.get(name, []) if "md5" in file}

    return Made(hashes("deps"), hashes("outs"), by)
