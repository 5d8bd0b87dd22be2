"""What DVC writes in place, put right where a kill, a full disk or a power cut left a part of it.

DVC refuses every later command while ``.dvc/tmp/rwlock``, its list of who reads and writes what,
is broken, and so it does with ``dvc.lock``, where what is left does not pass for a whole one.
"""

import json
from pathlib import Path

from tasks.files import artifacts
from tasks.graph.lockfile import ENTRY, HEAD, OTHER, content

HASHES = ("md5", "etag", "checksum", "files", "dataset")


def mend(root: Path) -> None:
    """``mend_list`` and ``mend_lock``."""
    mend_list(root)
    mend_lock(root)


def mend_list(root: Path) -> None:
    """Remove the list of who reads and writes what where it cannot be read.

    What was registered in it is lost: a stage of another DVC process that was registered ends
    with an assertion of DVC's, after it has written its outputs; running it again is what helps.
    """
    folder = root / ".dvc" / "tmp"
    if _whole(folder / "rwlock"):
        return
    from dvc.lock import make_lock

    # Unless held by this lock, a list that is just being written looks broken as well.
    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        if not _whole(folder / "rwlock"):
            (folder / "rwlock").unlink()
            print("removed .dvc/tmp/rwlock, of which DVC could write a part only", flush=True)


def _whole(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def mend_lock(root: Path) -> None:
    """Cut a torn ``dvc.lock`` back to whole stages; the next run restores the others.

    What no cut explains, such as the marks of a conflict in git, is left to DVC and its message.
    """
    lock = root / "dvc.lock"
    if not lock.is_file() or kept(_read(lock)) is None:
        return
    from dvc.repo import Repo, lock_repo

    # While DVC writes it, it looks torn as well.
    with Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
        left = kept(_read(lock))
        if left is None:
            return
        if left == HEAD:
            lock.unlink()
        else:
            artifacts.write_text(lock, left)
    print("cut dvc.lock, of which DVC could write a part only, back to whole stages", flush=True)


def kept(text: str) -> str | None:
    """What is to be kept of ``text``, the beginning of a ``dvc.lock``; None where it is whole.

    Only its last stage can be in part, and is taken to be where the last line has no end. Cut
    between two files it passes for whole, and is run again.
    """
    if HEAD.startswith(text):
        return HEAD
    if not text.startswith(HEAD):
        return None
    last = max((entry.start() for entry in ENTRY.finditer(text)), default=len(HEAD))
    rest = text[last:]
    if OTHER.search(rest) or (rest.endswith("\n") and _is_stage(rest)):
        return None
    return text[:last]


def _read(lock: Path) -> str:
    return lock.read_bytes().decode(errors="replace")  # a cut may part a character


def _is_stage(text: str) -> bool:
    """Whether ``text`` is the entry of one stage that DVC takes, with the hash of every file."""
    from dvc.exceptions import DvcException

    try:
        (stage,) = content(text).values()
    except DvcException:
        return False
    files = [file for kind in ("deps", "outs") for file in stage.get(kind, [])]
    return all(any(map(file.get, HASHES)) for file in files)
