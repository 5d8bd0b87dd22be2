"""The last run of a clone, whole and logged: its results are told again where nothing changed.

Forgotten when anything else is logged from the clone, an experiment of DVC (``tasks.track``) or a
request in a folder of its own: MLflow's registry then follows that, until the clone runs again.
"""

import hashlib
from pathlib import Path

from tasks.files import artifacts
from tasks.graph import lock
from tasks.tracking.store import LAST, address
from tasks.tracking.tracker import Page

SQLITE = b"SQLite format 3\0"  # how each of its files begins


def remember(root: Path, page: Page) -> None:
    """Note that all that ``dvc.lock`` records is logged, and where it is shown."""
    content = {"lock": _lock(root), "store": address(root), "page": page._asdict()}
    artifacts.write_json(root / LAST, content)


def forget(root: Path) -> None:
    (root / LAST).unlink(missing_ok=True)


def run(root: Path) -> Page | None:
    """Where the last run is shown, if it made what ``dvc.lock`` records and MLflow still has it."""
    try:
        known = artifacts.read_json(root / LAST)
        page, of = Page(**known["page"]), (known["lock"], known["store"])
    except (artifacts.ArtifactError, LookupError, TypeError):  # none yet, or of another version
        return None
    store = address(root)
    if of != (_lock(root), store):
        return None
    local = store.startswith("sqlite:///")
    return page if not local or _database(Path(store.removeprefix("sqlite:///"))) else None


def _database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError:
        return False


def _lock(root: Path) -> str:
    return hashlib.sha256((root / lock.FILE).read_bytes()).hexdigest()
