"""``params.yaml``, the only source of parameters, read into typed and checked dataclasses."""

import copy
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    ScalarEvent,
)

FILE = "params.yaml"
TABLES = (".csv", ".parquet")
LARGEST, DEEPEST = 1_000_000, 50  # bytes of a file of parameters, and how deep it is nested
LONGEST = 200  # characters of a value in a message
REPLACED = ("network", "retrain", "unlearn")  # sections whose keys depend on what they name
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# Sections whose entries are stages, and what of an entry is part of a path.
ENTRIES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("retrain",): (),
    ("unlearn",): ("method", "data_access"),
    ("ensemble", "families"): ("manifest",),
    ("ensemble", "judged"): ("method",),
}
T = TypeVar("T")


class ParameterError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


def read(root: Path) -> dict[str, Any]:
    """All of ``params.yaml``."""
    if not (root / FILE).is_file():
        raise ParameterError(f"there is no {FILE} in {root}: run this in the repository's folder")
    return read_file(root / FILE, FILE, "sections")


def read_file(path: Path, name: str, of: str) -> dict[str, Any]:
    """A mapping, parsed as DVC parses it (YAML 1.2). name, of: of the file and what it maps.

    Raises ParameterError, which says nothing of what the file holds: it may be no settings at all.
    """
    try:
        if path.exists() and not path.is_file():
            raise ParameterError(f"{name} is no file")
        if path.is_file() and (size := path.stat().st_size) > LARGEST:
            raise ParameterError(f"{name} must have at most {LARGEST} bytes, got {size}")
        content = copy.deepcopy(_parsed(path.read_text(encoding="utf-8-sig")))
    except ParameterError:
        raise
    except FileNotFoundError as error:
        raise ParameterError(f"there is no {name}") from error
    except OSError as error:
        raise ParameterError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"{name} must be UTF-8, and byte {error.start} is not") from None
    except (YAMLError, ValueError) as error:  # ValueError: 99 as a month, a number without end
        raise ParameterError(f"{name} is not valid YAML{_where(error)}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{name} must be a mapping of {of}, got {type(content).__name__}")
    if wrong := [key for key in content if not isinstance(key, str)]:
        raise ParameterError(f"{name}: a key must be a text, got {type(wrong[0]).__name__}")
    return content


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    # A stage reads params.yaml a dozen times, a run's summary three hundred times.
    _require_small(text)
    return YAML(typ="safe").load(text)


def _require_small(text: str) -> None:
    """Raises YAMLError for what crashes libyaml, as it is deep, or is huge once it is written out:
    a few aliases of aliases of a list are."""
    size, sizes, begun = 0, dict[str | None, int](), list[tuple[str | None, int]]()
    for event in YAML(typ="safe").parse(text):
        match event:
            case CollectionStartEvent():
                begun.append((event.anchor, size))
            case CollectionEndEvent():
                anchor, before = begun.pop()
                sizes[anchor] = size - before
            case AliasEvent():
                size += sizes.get(event.anchor, 0)
            case ScalarEvent():
                sizes[event.anchor] = len(event.value) + 1
                size += len(event.value) + 1
        if len(begun) > DEEPEST:
            raise YAMLError(f"nested deeper than {DEEPEST}")
        if size > LARGEST:
            raise YAMLError(f"its aliases written out it has more than {LARGEST} characters")


def _where(error: Exception) -> str:
    """The line at which YAML ends, and why, without what stands there but for a key's name."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", "") or str(error)
    said = said.partition("\n")[0].partition(" with value ")[0]  # of a key that stands there twice
    shows = r"[\w.-]{1,100}" if "duplicate key" in said else r"\W|<[a-z ]+>"
    problem = re.sub(
        r"""(['"])(.*?)\1""", lambda q: q[0] if re.fullmatch(shows, q[2]) else "…", said
    )
    return f": line {mark.line + 1}: {problem}" if mark else f": {problem}"


def section(root: Path, name: str) -> Any:
    """One section; ``name`` is a dotted path such as ``unlearn.imu``."""
    content: Any = read(root)
    for depth, part in enumerate(parts := name.split(".")):
        if not isinstance(content, dict) or part not in content:
            where = ": ".join(filter(None, [FILE, ".".join(parts[:depth])]))
            choices = ", ".join(map(str, content)) if isinstance(content, dict) else ""
            raise ParameterError(f"{where} has no {part!r}, only {choices or 'nothing'}")
        content = content[part]
    return content


def load(root: Path, name: str, config: type[T], *, without: tuple[str, ...] = ()) -> T:
    """The section ``name`` as a ``config``; keys in ``without`` belong to somebody else.

    Unknown keys, wrong types (no conversion: "1" is not 1) and values out of range raise
    ParameterError, naming the parameter, the value and what is allowed.
    """
    content = section(root, name)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in without}
    return parse(content, name, config)


def parse(content: Any, name: str, config: type[T], *, file: str = FILE) -> T:
    """Check ``content``, from ``name`` in ``file``, against the dataclass (or type) ``config``."""
    try:
        return _adapter(config).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ParameterError(
            "\n".join(f"{file}: {_explain(e, name, config)}" for e in error.errors())
        ) from None
    except (TypeError, ValueError, RecursionError) as error:  # a date; what holds itself
        raise ParameterError(f"{file}: {name}: {error}") from error


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``content``, a whole ``params.yaml``, with other values at some dotted paths.

    Raises ParameterError for a path that is not there, and for a section that would lose what is
    not named.
    """
    content = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, last = path.split(".")
        section: Any = content
        for part in parents:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ParameterError(f"{FILE} has no {shown(path)} to change")
        if isinstance(value, dict) and not parents and path not in REPLACED:
            raise ParameterError(
                f"{path!r} cannot be replaced whole: name what changes, such as "
                f"'{path}.{next(iter(value), '')}'"
            )
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ParameterError(f"{path}: {error}") from error
        section[last] = value
    return content


def read_changes(root: Path, path: Path, name: str) -> dict[str, Any]:
    """What the file ``path`` changes of the ``params.yaml`` of ``root``, as in ``changed``.

    Raises ParameterError, which begins with ``name``.
    """
    changes = read_file(path, name, "dotted paths")
    try:
        changed(read(root), changes)
    except ParameterError as error:
        raise ParameterError(f"{name}: {error}") from None
    return changes


def require_safe(root: Path, content: dict[str, Any]) -> None:
    """Refuse a whole ``params.yaml`` that may not be handed to DVC for the workspace ``root``.

    What ``dvc.yaml`` puts into names and paths are identifiers, and files lie in the workspace.
    Raises ParameterError.
    """

    def mapping(*path: str) -> dict[str, Any]:
        found: Any = content
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise ParameterError(f"{FILE}: {'.'.join(path)} must be a mapping, got {found!r}")
        return found

    fields: list[tuple[tuple[str, ...], str]] = [
        (("split",), "dataset"),
        (("network",), "name"),
        (("ensemble", "network"), "name"),
    ]
    named: dict[str, object] = {}
    for entries, keys in ENTRIES.items():
        for item in mapping(*entries):
            named[".".join(map(str, (*entries, item)))] = item
            fields += [((*entries, item), key) for key in keys]
    for path, key in fields:
        of = mapping(*path)
        if key == "data_access" and "sees" in of:
            raise ParameterError(
                f"{FILE}: {'.'.join(path)}.sees is called data_access since 0.2.0: rename it"
            )
        if key in of:  # DVC names what is missing
            named[".".join(map(str, (*path, key)))] = of[key]
    for where, name in named.items():
        require_name(f"{FILE}: {where}", name)
    require_inside(root, "split.by_ids.file", mapping("split", "by_ids").get("file"))
    require_inside(root, "split.forgotten_before", mapping("split").get("forgotten_before"))


def require_name(where: str, name: object) -> None:
    """Raises ParameterError unless ``name`` can stand in a path and on a command line."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ParameterError(
            f"{clipped(where)}: a name must consist of letters, digits and underscores, at most "
            f"100, got {shown(name)}"
        )


def item_of(word: str) -> str:
    """The item that a command names: "unlearn/evaluate@imu" and "unlearn/imu" are "unlearn/imu".

    Raises ParameterError unless it consists of names.
    """
    *kind, name = word.split("/")
    parts = [*kind, name.partition("@")[2] or name]
    for part in parts:
        require_name(f"the item {word!r}", part)
    return "/".join(parts)


def require_inside(root: Path, where: str, file: object) -> Path:
    """``file`` of the workspace ``root``.

    Raises ParameterError for an address and where it lies elsewhere, links followed.
    """
    path = root / str(file)
    if "\0" in str(file) or "://" in str(file) or not path.resolve().is_relative_to(root.resolve()):
        raise ParameterError(f"{FILE}: {where} must be a file in the workspace, got {file!r}")
    if path.suffix not in TABLES:  # what a table lacks is told, and so is how a file begins
        raise ParameterError(f"{FILE}: {where} must end in {' or '.join(TABLES)}, got {file!r}")
    return path


def title(parameters: dict[str, Any]) -> str:
    """Data set, forget set and seed of a whole ``params.yaml``, in a few words.

    Raises ParameterError where the section ``split`` does not say what is forgotten.
    """
    forgotten: dict[str, Callable[[Any], str]] = {
        "class": lambda of: "class " + ", ".join(of["classes"]),
        "fraction": lambda of: f"{100 * of['fraction']:g} %",
        "ids": lambda of: f"ids of {of['file']}",
        "group": lambda of: of["attribute"] if of["values"] == ["yes"] else ", ".join(of["values"]),
        "subject": lambda of: ", ".join(of["subjects"]),
    }
    try:
        split = parameters["split"]
        said = forgotten[split["scenario"]](split[f"by_{split['scenario']}"])
        return f"{split['dataset']} · {said} · seed {parameters['seed']}"
    except (LookupError, TypeError, ValueError) as error:
        raise ParameterError(
            f"{FILE}: the section split does not say what is forgotten: "
            f"{type(error).__name__}: {error}"
        ) from error


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def shown(value: object) -> str:
    """A value in a message, where it may be of any length."""
    return clipped(repr(value))


def clipped(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def line(content: dict[str, Any]) -> str:
    """``content`` as one line for ``params.yaml``."""
    yaml, text = YAML(), StringIO()
    yaml.default_flow_style, yaml.width = True, sys.maxsize
    yaml.dump(content, text)
    return text.getvalue().strip().removeprefix("{").removesuffix("}")


def block(content: dict[str, Any]) -> str:
    """``content`` in lines for ``params.yaml``, as DVC writes them where it changes a parameter."""
    text = StringIO()
    YAML().dump(content, text)
    return text.getvalue()


def _adapter(config: Any) -> TypeAdapter[Any]:
    if hasattr(config, "__dataclass_fields__"):
        config = validated(
            config, frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        )
    return TypeAdapter(config)


def _explain(error: Any, name: str, config: Any) -> str:
    # Where one of several types is allowed, pydantic adds which of them it tried.
    loc = [p for p in error["loc"] if p != "float" and not str(p).startswith("literal[")]
    where = ".".join([name, *(str(part) for part in loc)])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        for part in error["loc"][:-1]:
            config = config.__dataclass_fields__[part].type
        known = ", ".join(config.__dataclass_fields__) or "no parameters"
        return f"unknown parameter {where}; known here: {known}"
    if error["type"] == "missing":
        return f"{where} is missing"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", got {shown(error['input'])}"
    return f"{where}: {message}{got}"
