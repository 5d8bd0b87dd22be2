"""DVC's list of who reads and writes what, put right where a full disk or a power cut broke it.

DVC writes it in place, and refuses every later command while half of it is there.
"""

import json
from pathlib import Path


def mend(root: Path) -> None:
    """Remove the list where it cannot be read: what was registered in it is lost.

    A stage of another DVC process that was registered ends with an assertion of DVC's, after it
    has written its outputs; running it again is what helps.
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
