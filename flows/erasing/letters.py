"""Letters in ``requests/inbox``: one request each, as people or other programs put them there.

A YAML file with ``subjects`` or ``ids``, and ``settings``, a file in settings/, where the data are
not those of params.yaml; or a CSV or parquet table with a column ``subject`` or ``id``.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from tasks.erasing import ErasureError
from tasks.erasing.matching import Asked
from tasks.files import artifacts, params

INBOX, SETTINGS = "requests/inbox", "settings"
LARGEST = {True: 1_000_000, False: 100_000}  # bytes of a letter, by whether it is a table
DEEPEST = 20  # how deep one that is none is nested


class Letters(NamedTuple):
    """good: file and what it asks for, the oldest first. bad: what is wrong with the others."""

    good: list[tuple[Path, Asked]]
    bad: list[str]


def letters(root: Path) -> Letters:
    """What lies in the inbox; hidden files are being written, and no letters."""
    folder, found = root / INBOX, Letters([], [])
    folder.mkdir(parents=True, exist_ok=True)
    paths = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path.name)):
        try:
            found.good.append((path, read(root, path)))
        except ErasureError as error:
            found.bad.append(str(error))
        except Exception as error:  # one letter holds up no other
            found.bad.append(f"{_named(path)}: {type(error).__name__}")
    return found


def read(root: Path, path: Path) -> Asked:
    """What the letter ``path`` asks for.

    Raises ErasureError, naming it, but nothing of what it holds: Prefect keeps that.
    """
    try:
        if path.is_symlink():
            raise ErasureError("it is a link")
        tabular = path.suffix in params.TABLES
        if (size := path.stat().st_size) > LARGEST[tabular]:
            wanted = "" if tabular else ", so that it must be a table"
            raise ErasureError(f"it has {size} bytes, more than {LARGEST[tabular]}{wanted}")
        if tabular:
            table = artifacts.read_given(path, id="str", subject="str")
            column = "subject" if "subject" in table else "id"
            if column not in table:
                raise ErasureError("it has neither a column subject nor a column id")
            values = [str(v) if isinstance(v, int) else v for v in table[column].tolist()]
            names = tuple(dict.fromkeys(values))
            return Asked(subjects=names) if column == "subject" else Asked(ids=names)
        content = _parsed(path)
        if not isinstance(content, dict) or content.keys() - {"subjects", "ids", "settings"}:
            raise ErasureError("it must be a mapping of subjects, ids and settings alone")
        lists = {}
        for name in ("subjects", "ids"):
            lists[name] = content.get(name, [])
            if not isinstance(lists[name], list):
                raise ErasureError(f"{name} must be a list of texts")
        settings = settings_of(root, str(content.get("settings") or ""))
        return Asked(subjects=tuple(lists["subjects"]), ids=tuple(lists["ids"]), settings=settings)
    except (ErasureError, params.ParameterError) as error:
        raise ErasureError(f"{_named(path)}: {error}") from error
    except artifacts.ArtifactError as error:
        raise ErasureError(f"{_named(path)}: it is not a readable table") from error


def _named(path: Path) -> str:
    return f"the letter {ascii(path.name)[1:-1]} cannot be served"


def _parsed(path: Path) -> Any:
    """YAML that cannot blow up: no anchors, and not deep. By ruamel's own parser: libyaml's crashes
    on what is deep.
    """
    try:
        text, depth = path.read_text(encoding="utf-8"), 0
        for event in YAML(typ="safe", pure=True).parse(text):
            if getattr(event, "anchor", None):
                raise ErasureError("it has an anchor or an alias")
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > DEEPEST:
                raise ErasureError(f"it is nested deeper than {DEEPEST}")
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ErasureError("it is not valid YAML") from error


def settings_of(root: Path, file: str) -> dict[str, Any]:
    """What a file in settings/ changes of params.yaml; "" for none.

    Raises ParameterError where it lies elsewhere, or changes what is not there, or how a request is
    judged, or where it is written that it was served.
    """
    if not file:
        return {}
    path, folder = root / file, root.resolve() / SETTINGS
    if "\0" in file or not (path.resolve().is_relative_to(folder) and path.is_file()):
        # Of a letter no more is told: it may name people.
        raise params.ParameterError(f"settings must be a file in {SETTINGS}/")
    settings = params.read_changes(root, path, file)
    for name in settings:
        if name.split(".")[0] == "verdict" or name == "split.forgotten_before":
            raise params.ParameterError(f"{file}: a request may not change {name}")
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise params.ParameterError(f"{file}: {error}") from error
    return settings
