"""How threads of one process share DVC."""

import threading
from pathlib import Path

from tasks.graph.lineage import locked
from tests.conftest import run


def test_threads_use_dvc_in_turn_in_different_repositories(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("one", "other")]
    for root in roots:
        root.mkdir()
        run("dvc", "init", "-q", "--no-scm", cwd=root)
    entered = threading.Event()

    def enter() -> None:
        with locked(roots[1]):
            entered.set()

    thread = threading.Thread(target=enter)
    with locked(roots[0]):
        thread.start()
        assert not entered.wait(2)
    thread.join(60)
    assert entered.is_set()
