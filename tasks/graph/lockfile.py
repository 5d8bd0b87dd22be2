"""``dvc.lock`` by its stages: how it is laid out, and how runs of ours read and write it.

For one stage DVC reads the file whole, and writes it whole and in place, after it has read it once
more with all its comments. ``benchmarks/startup.py`` measures how long that takes, for every stage
and while the others wait.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.files import artifacts

HEAD = "schema: '2.0'\nstages:\n"  # how DVC begins the file
ENTRY = re.compile(r"^  (?=\S)", re.MULTILINE)  # where that of a stage begins
OTHER = re.compile(r"^ ?[^ \n]", re.MULTILINE)  # what none has, such as the marks of a conflict
SHARED = re.compile(r" [&*]id\d{3}")  # values that DVC writes once and refers to elsewhere
PLAIN = re.compile(r"  ([A-Za-z]+[@_][\w@]*|[a-z]{4,}):\n")  # names that are what they look like


@cache
def by_stage() -> None:
    """Have DVC, in this process, read and write entries of stages and leave the others alone.

    The file is to the byte the one that DVC would write, and is replaced as a whole. One that is
    not laid out as DVC does it, that is a link, or in which entries share values, is left to DVC,
    and what it says of it.
    """
    from dvc import dvcfile
    from dvc.fs import LocalFileSystem

    class ByStage(dvcfile.Lockfile):
        def _read(self) -> tuple[str, dict[str, str] | None]:
            path = Path(self.path)
            if path.is_symlink() or not isinstance(self.repo.fs, LocalFileSystem):
                return "", None  # a link would be replaced; the other is of another commit
            text = path.read_text(encoding="utf-8") if path.exists() else HEAD
            return text, entries(text)

        def _load_yaml(self, **options: Any) -> tuple[Any, str]:
            text, found = self._read()
            if found is None or options:
                return super()._load_yaml(**options)
            return {"schema": "2.0", "stages": Stages(found)}, text

        def dump_stages(self, stages: list[Any], **options: Any) -> None:
            text, found = self._read()
            new: dict[str, str] = {}
            for stage in stages:
                new |= entry(dvcfile.serialize.to_lockfile(stage, **options))
            if found is None or any(map(SHARED.search, new.values())):
                super().dump_stages(stages, **options)
                return
            changed = HEAD + "".join((found | new).values())
            if changed != text:
                dvcfile.logger.info("Updating lock file '%s'", self.relpath)
                artifacts.write_text(Path(self.path), changed)
                self.repo.scm_context.track_file(self.relpath)

    dvcfile.Lockfile = ByStage


class Stages(Mapping[str, Any]):
    """Stage -> content as DVC reads it, read when it is asked for.

    Raises what DVC does for content that is not that of a stage.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, name: str) -> Any:
        return copy.deepcopy(content(self._texts[name])[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def entries(text: str) -> dict[str, str] | None:
    """Stage -> its lines in ``text``, a ``dvc.lock``; None where it is laid out otherwise."""
    starts = [found.start() for found in ENTRY.finditer(text)]
    begin = starts[0] if starts else len(text)
    if text[:begin] != HEAD or OTHER.search(text, begin) or not text.endswith("\n"):
        return None
    if SHARED.search(text):
        return None
    lines = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    try:
        found = {_name(each): each for each in lines}
    except (YAMLError, TypeError):  # a comment; a name that is too long for its line
        return None
    return found if len(found) == len(lines) else None


@lru_cache(maxsize=512)
def content(lines: str) -> Any:
    """The name and content of the stage whose entry ``lines`` is; not to be changed.

    Raises what DVC does where it is none.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml
    from dvc.utils.strictyaml import validate

    read = parse_yaml(HEAD + lines, "dvc.lock")
    validate(read, COMPILED_LOCKFILE_SCHEMA, text=HEAD + lines, path="dvc.lock")
    return read["stages"]


def entry(stage: Mapping[str, Any]) -> dict[str, str]:
    """Name and lines of one stage; ``stage``: its name -> its content, as DVC makes it."""
    from dvc.utils.serialize import dumps_yaml

    lines = dumps_yaml({"stages": stage}).removeprefix("stages:\n")
    return dict.fromkeys(stage, lines)


def _name(lines: str) -> Any:
    header = lines[: lines.index("\n") + 1]
    if plain := PLAIN.fullmatch(header):
        return plain[1]
    return next(iter(YAML(typ="safe").load(header)))
