"""Letters in ``requests/inbox``: one request each, as people or other programs put them there.

A YAML file with ``subjects`` or ``ids``, and ``settings``, a file of parameters, where the data are
not those of params.yaml; or a CSV or parquet table with a column ``subject`` or ``id``.
"""

from collections.abc import Iterator
from pathlib import Path

from tasks.erasing import ErasureError
from tasks.erasing.matching import Asked
from tasks.files import artifacts, params

INBOX = "requests/inbox"


def letters(root: Path) -> Iterator[tuple[Path, Asked]]:
    """The oldest first; hidden files are being written, and no letters.

    Raises ErasureError at one that cannot be read, when those before it are served.
    """
    folder = root / INBOX
    folder.mkdir(parents=True, exist_ok=True)
    found = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    for path in sorted(found, key=lambda path: (path.stat().st_mtime, path.name)):
        yield path, read(root, path)


def read(root: Path, path: Path) -> Asked:
    """What the letter ``path`` asks for. Raises ErasureError, naming it."""
    try:
        if path.suffix in params.TABLES:
            table = artifacts.read_given(path, id="str", subject="str")
            column = "subject" if "subject" in table else "id"
            if column not in table:
                raise ErasureError("it has neither a column subject nor a column id")
            names = tuple(dict.fromkeys(table[column].astype(str)))
            return Asked(subjects=names) if column == "subject" else Asked(ids=names)
        content = params.read_file(path, path.name, "fields")
        if unknown := sorted(content.keys() - {"subjects", "ids", "settings"}):
            raise ErasureError(f"it has a field {unknown[0]!r}; known: subjects, ids, settings")
        lists = {}
        for name in ("subjects", "ids"):
            lists[name] = content.get(name, [])
            if not isinstance(lists[name], list) or not all(
                isinstance(one, str) for one in lists[name]
            ):
                raise ErasureError(f"{name} must be a list of texts, got {lists[name]!r}")
        file = str(content.get("settings") or "")
        settings = params.read_file(root / file, file, "paths") if file else {}
        return Asked(subjects=tuple(lists["subjects"]), ids=tuple(lists["ids"]), settings=settings)
    except (ErasureError, artifacts.ArtifactError, params.ParameterError) as error:
        raise ErasureError(f"the letter {path.name} cannot be served: {error}") from error
