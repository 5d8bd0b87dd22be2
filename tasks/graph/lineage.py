"""Keys that join DVC, MLflow and git.

The key of a stage is the SHA-256 of what DVC records about its making: command, content hashes of
its dependencies, parameter values. Two stages with the same key have the same outputs, whether
they were computed or restored from a cache, as long as processor and packages are of one kind.
"""

import hashlib
import json
import subprocess
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.graph import lockfile, torn

if TYPE_CHECKING:
    from dvc.repo import Repo

# What a stage's meta.pool may say; runtime.device can stand there.
POOLS = {"": "", "cpu": "", "gpu": "gpu", "cuda": "gpu"}
_IN_TURN = threading.RLock()


def current_key(root: Path, name: str) -> str:
    """Key of the stage ``name`` (such as "unlearn@imu") as its dependencies lie on disk now."""
    from dvc.stage.utils import split_params_deps

    with locked(root) as repo:
        stage = repo.stage.load_one(name=name)
        for dependency in stage.deps:
            dependency.save()
        parameters, files = split_params_deps(stage)
        return _key(
            stage.cmd,
            {file.def_path: file.hash_info.value for file in files},
            {source.def_path: source.hash_info.value for source in parameters},
        )


class Locked(NamedTuple):
    """What ``dvc.lock`` records of a stage. outputs: path -> content hash."""

    key: str
    outputs: dict[str, str]


def locked_stages(root: Path) -> dict[str, Locked]:
    """Every stage that ``dvc.lock`` records; {} when there is no lock yet. A torn one is mended."""
    return {name: _locked(content) for name, content in _recorded(root).items()}


def locked_keys(root: Path, made: Mapping[str, str] = {}) -> Mapping[str, str]:
    """Key of every stage that ``dvc.lock`` records, each read when it is asked for.

    made: keys of stages that it does not record yet; they come first.
    """
    return _Keys(_recorded(root), made)


class _Keys(Mapping[str, str]):
    def __init__(self, recorded: Mapping[str, Any], made: Mapping[str, str]) -> None:
        self._recorded, self._made = recorded, made

    def __getitem__(self, name: str) -> str:
        return self._made[name] if name in self._made else _locked(self._recorded[name]).key

    def __iter__(self) -> Iterator[str]:
        return iter({**self._recorded, **self._made})

    def __len__(self) -> int:
        return len(self._recorded.keys() | self._made.keys())


def _recorded(root: Path) -> Mapping[str, Any]:
    with locked(root) as repo:
        from dvc.dvcfile import Lockfile

        contents = Lockfile(repo, str(root / "dvc.lock")).load()
    stages: Mapping[str, Any] = contents.get("stages", {})
    return stages


def _locked(stage: dict[str, Any]) -> Locked:
    def hashes(files: Iterable[dict[str, Any]]) -> dict[str, str]:
        return {file["path"]: file["md5"] for file in files}

    return Locked(
        _key(stage["cmd"], hashes(stage.get("deps", [])), stage.get("params", {})),
        hashes(stage.get("outs", [])),
    )


def not_reproduced(before: Mapping[str, Locked], after: Mapping[str, Locked]) -> list[str]:
    """Stages that were made again from the same inputs, and came out otherwise.

    Outputs that were not recorded before, as a cut may leave it, say nothing.
    """
    return [
        name
        for name, stage in after.items()
        if name in before
        and before[name].key == stage.key
        and not before[name].outputs.items() <= stage.outputs.items()
    ]


def pipeline_key(keys: Mapping[str, str]) -> str:
    """One key for a whole pipeline: equal if and only if the keys of all its stages are."""
    return hashlib.sha256(json.dumps(dict(keys), sort_keys=True).encode()).hexdigest()


def commands(root: Path) -> dict[str, tuple[str, str | None]]:
    """Name in ``dvc.yaml`` -> (stage, item) of its ``exec python -m tasks STAGE [ITEM]``."""
    from dvc.dvcfile import ProjectFile

    with locked(root) as repo:
        found = {}
        # Stages as DVC builds them, with all their files, are not needed here and take 2 s.
        resolver = ProjectFile(repo, str(root / "dvc.yaml")).resolver
        for name in resolver.get_keys():
            words = resolver.resolve_one(name)[name]["cmd"].split()
            if words[:4] == ["exec", "python", "-m", "tasks"]:
                found[name] = (words[4], words[5] if len(words) > 5 else None)
        return found


def stage_graph(root: Path) -> dict[str, set[str]]:
    """Every stage of ``dvc.yaml`` with the stages it depends on directly, in a runnable order."""
    import networkx
    from dvc.stage import PipelineStage

    with locked(root) as repo:
        graph = repo.index.graph
        return {
            stage.name: {
                needed.name
                for needed in graph.successors(stage)
                if isinstance(needed, PipelineStage)
            }
            for stage in networkx.lexicographical_topological_sort(
                graph.reverse(), key=lambda stage: stage.addressing
            )
            if isinstance(stage, PipelineStage)
        }


def wanted(graph: dict[str, set[str]], targets: Collection[str]) -> dict[str, set[str]]:
    """The part of ``graph`` that ``targets`` need, themselves included; all of it without any.

    Raises KeyError for a target that is no stage.
    """
    if not targets:
        return graph
    needed, left = set(targets), list(targets)
    while left:
        new = graph[left.pop()] - needed
        needed |= new
        left += new
    return {name: before for name, before in graph.items() if name in needed}


def stage_pools(root: Path) -> dict[str, str]:
    """Stage -> "gpu" where its ``meta`` asks for that work pool, "" where any host will do.

    Raises ParameterError for another one.
    """
    from dvc.stage import PipelineStage

    from tasks.files.params import ParameterError

    found = {}
    with locked(root) as repo:
        for stage in repo.index.stages:
            if not isinstance(stage, PipelineStage):
                continue
            asked = (stage.meta or {}).get("pool", "")
            if asked not in POOLS:
                raise ParameterError(
                    f"dvc.yaml: {stage.name}: meta.pool must be cpu, gpu or cuda, got {asked!r}"
                )
            found[stage.name] = POOLS[asked]
    return found


def restore(root: Path, name: str) -> bool:
    """Check the stage's outputs out of DVC's cache, its remote included; False where it has none.

    What ``dvc repro --pull`` does before it runs a stage, without running it. Entries of the run
    cache that are here already are left alone: another stage may be reading them.
    """
    from dvc.stage.cache import RunCacheNotFoundError

    with locked(root) as repo:
        remote = repo.cloud.get_remote_odb(None, "restore", hash_name="md5-dos2unix")
        repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)
        stage = repo.stage.load_one(name=name)
        stage.save_deps()
        try:
            repo.stage_cache.restore(stage, pull=True)
        except RunCacheNotFoundError:
            return False
    return True


def changed_stages(root: Path) -> set[str]:
    """Stages whose own command, dependencies, parameters or outputs differ from ``dvc.lock``."""

    with locked(root) as repo:
        return {name.rsplit(":", 1)[-1] for name in repo.status()}


def git_tags(root: Path) -> dict[str, str]:
    """Commit and whether tracked files differ from it; {} outside a git repository."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    commit = git("rev-parse", "HEAD")
    if commit.returncode:
        return {}
    # dvc.lock is written by the run itself and would make every run dirty.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return {
        "git.commit": commit.stdout.strip(),
        "git.dirty": str(bool(changed.stdout.strip())).lower(),
    }


@contextmanager
def locked(root: Path) -> Iterator["Repo"]:
    """The DVC repository, held: DVC rewrites ``dvc.lock`` in place, so a reader waits its turn.

    A ``dvc.lock`` that was torn is mended first.

    Threads take turns whatever the repository: the schemas by which DVC checks its files are
    compiled while they are used, and one thread finds what another has half compiled.
    """
    from dvc.repo import Repo, lock_repo

    lockfile.by_stage()
    with _IN_TURN:
        torn.mend_lock(root)
        with Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
            yield repo


def _key(command: Any, files: dict[str, Any], parameters: dict[str, Any]) -> str:
    content = {"cmd": command, "deps": files, "params": parameters}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
