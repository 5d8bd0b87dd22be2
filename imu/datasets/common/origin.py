"""Whether what a data set was made from is still what it was then."""

import hashlib
import json
import os
from pathlib import Path

from imu.datasets import ABOUT


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and sizes of all files in it.

    "" where there is neither. Hidden files are passed over.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listed = sorted(
        f"{found.relative_to(path).as_posix()}\t{found.stat().st_size}\n"
        for place, _, files in os.walk(path, followlinks=True)
        for file in files
        if not file.startswith(".") and (found := Path(place, file)).is_file()
    )
    text = "".join(listed).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest() if listed else ""


def changed(folder: Path, path: Path) -> bool:
    """Whether ``path``, which the data set in ``folder`` was made from, differs from then.

    False where that is not known: ``path`` is not here, or nothing was recorded.
    """
    recorded = json.loads((folder / ABOUT).read_text(encoding="utf-8")).get("fingerprint")
    now = fingerprint(path)
    return bool(recorded and now and recorded != now)
