"""The stages of ``dvc.yaml``: their order, what they run, and whether they are up to date."""

import json
import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.files.params import ParameterError
from tasks.graph import lock

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

# What a stage's meta.pool may say; runtime.device can stand there.
POOLS = {"": "", "cpu": "", "gpu": "gpu", "cuda": "gpu"}
_IN_TURN = threading.RLock()


class Stage(NamedTuple):
    """A stage of ``dvc.yaml``. needs: the stages that it depends on directly.

    stage, item: of its ``exec python -m tasks STAGE [ITEM]``. pool: "gpu" where its ``meta`` asks
    for that work pool, "" where any host will do.
    """

    stage: str
    item: str | None
    needs: frozenset[str]
    pool: str

    @property
    def producer(self) -> str:
        """Such as "unlearn/imu", "evaluate/unlearn/imu" or "split"."""
        return f"{self.stage}/{self.item}" if self.item else self.stage


def stages(root: Path) -> dict[str, Stage]:
    """Every stage by its name in ``dvc.yaml`` (such as "unlearn@imu"), in a runnable order.

    Raises ParameterError for a command or a pool that is not ours.
    """
    with opened(root) as repo:
        return _stages(repo)


def stages_and_changed(root: Path) -> tuple[dict[str, Stage], set[str]]:
    """``stages`` and ``changed_stages``, of one reading."""
    with opened(root) as repo:
        return _stages(repo), _changed(repo)


def _stages(repo: "Repo") -> dict[str, Stage]:
    import networkx
    from dvc.stage import PipelineStage

    graph = repo.index.graph
    found = {}
    for stage in networkx.lexicographical_topological_sort(
        graph.reverse(), key=lambda stage: stage.addressing
    ):
        if isinstance(stage, PipelineStage):
            needs = (n.name for n in graph.successors(stage) if isinstance(n, PipelineStage))
            found[stage.name] = _stage(stage, frozenset(needs))
    return found


def _stage(stage: "PipelineStage", needs: frozenset[str]) -> Stage:
    words = str(stage.cmd).split()
    if words[:4] != ["exec", "python", "-m", "tasks"] or len(words) not in (5, 6):
        raise ParameterError(
            f"dvc.yaml: {stage.name}: cmd must be `exec python -m tasks STAGE [ITEM]`, "
            f"got {stage.cmd!r}"
        )
    asked = (stage.meta or {}).get("pool", "")
    if asked not in POOLS:
        raise ParameterError(
            f"dvc.yaml: {stage.name}: meta.pool must be cpu, gpu or cuda, got {asked!r}"
        )
    return Stage(*lock.called(stage.name, stage.cmd), needs, POOLS[asked])


def wanted(graph: dict[str, Stage], targets: Collection[str]) -> dict[str, Stage]:
    """The part of ``graph`` that ``targets`` need, themselves included; all of it without any.

    Raises KeyError for a target that is no stage.
    """
    if not targets:
        return graph
    needed, left = set(targets), list(targets)
    while left:
        new = graph[left.pop()].needs - needed
        needed |= new
        left += new
    return {name: stage for name, stage in graph.items() if name in needed}


def restore(root: Path, name: str) -> bool:
    """Check the stage's outputs out of DVC's cache, its remote included; False where it has none.

    What ``dvc repro --pull`` does before it runs a stage, without running it. Entries of the run
    cache that are here already are left alone: another stage may be reading them.
    """
    from dvc.stage.cache import RunCacheNotFoundError

    with opened(root) as repo:
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
    with opened(root) as repo:
        return _changed(repo)


def _changed(repo: "Repo") -> set[str]:
    return {name.rsplit(":", 1)[-1] for name in repo.status()}


def reproduce(root: Path, name: str, *, force: bool = False) -> None:
    """``dvc repro --single-item NAME``, without what DVC tells people at a terminal.

    Raises DvcException where the stage fails.
    """
    from dvc.repo import Repo

    _quieten()
    with Repo(str(root), _wait_for_lock=True) as repo:
        repo.reproduce(name, single_item=True, force=force)


def _quieten() -> None:
    """DVC then tells what is wrong, not what it does, nor how to track files with git."""
    logging.getLogger("dvc").setLevel(logging.WARNING)


def commit(root: Path, name: str) -> None:
    """Have ``dvc.lock`` record the stage as it lies here, as if it had run."""
    _quieten()
    with opened(root) as repo:
        # With its path: a name alone is that of a stage in the current folder.
        repo.commit(f"{root / 'dvc.yaml'}:{name}", force=True)


def mend(root: Path) -> list[str]:
    """Put right what DVC writes in place, where a kill or a full disk left a part of it.

    For when no stage runs in ``root``; what DVC writes just now is waited for. Returns what was
    done. A torn ``dvc.lock`` comes back from the copy that the last run kept
    (``tasks.graph.lock``); raises LockError where there is none.
    """
    with opened(root):
        return _mended(root)


def _mended(root: Path) -> list[str]:
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml
    from voluptuous import Invalid

    done = []
    readers = root / ".dvc" / "tmp" / "rwlock"  # who reads and writes what
    try:
        json.loads(readers.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError:
        readers.unlink()
        done.append("removed .dvc/tmp/rwlock, of which DVC could write a part only")
    if (root / lock.FILE).is_file():
        try:
            text = (root / lock.FILE).read_text(encoding="utf-8")
            COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, lock.FILE))
            lock.locked_stages(root)
        except (DvcException, Invalid, ValueError, lock.LockError):
            lock.put_back(root)
            done.append(f"put back {lock.FILE}, of which DVC could write a part only")
    return done


@contextmanager
def opened(root: Path) -> Iterator["Repo"]:
    """The DVC repository, held: DVC rewrites ``dvc.lock`` in place, so a reader waits its turn.

    Threads take turns whatever the repository: the schemas by which DVC checks its files are
    compiled while they are used, and one thread finds what another has half compiled.
    """
    from dvc.repo import Repo, lock_repo

    with _IN_TURN, Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
        yield repo
