"""Where something of forgotten samples lies, and its removal.

What lists a sample is a manifest of a split; what shows or remembers it was made from one, by way
of other stages (``tasks.graph.tracing``). The model that is served is made from them too, and has
forgotten.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tasks.files import artifacts, forgotten, params
from tasks.files.workspace import Workspace
from tasks.graph import tracing
from tasks.tracking import forgetting
from tasks.tracking.store import Store

CELLS = ".cells"
SPLIT = "runs/split/"
KINDS = {  # begin of a path -> what lies there
    SPLIT: "their ids and content hashes",
    "runs/report": "their images or texts",
    "runs/influence": "their influence, by id",
    "runs/evaluate": "what models say of them, by id",
    "runs/ensemble": "models that remember them",
    "runs/train": "a model that was made with them at hand",
    "runs/unlearn": "a model that may remember them",
}
DATA = (
    "taking rows out would redraw the split, so that samples that the model was trained on would "
    "pass for unseen; no set holds them any more. Take them out of the source when the original "
    "is trained anew"
)


SHARED = "so few bytes are equal by chance, and others who share the place may need them"
STORAGE = "not looked into: whether it keeps versions that are removed is set there"


class Place(NamedTuple):
    """Where something of the samples lies. kept: why the purge leaves it; "" where it does not."""

    where: str
    holds: str
    kept: str = ""


class Residue(NamedTuple):
    """files: and folders, on disk. objects: what DVC keeps, by content hash. logged: in MLflow."""

    places: list[Place]
    files: list[Path]
    objects: dict[str, str]
    logged: list[forgetting.Logged]


def scan(
    root: Path, store: Store, marks: Collection[str], served: Collection[Path], request: int = 0
) -> Residue:
    """All places in the clone ``root``, its DVC cache and remotes, and the experiment of ``store``.

    marks: of the samples, as ``tasks.files.forgotten`` has them. served: files of the model that is
    served now. request: what the samples are of; 0: of any.
    """

    def lists(file: Path | BytesIO) -> bool:
        return _lists(file, marks)

    cells = [f for f in sorted((root / CELLS).glob("*")) if f.is_dir()]
    workspaces = [root, *(f for f in cells if not f.is_symlink())]
    made = tracing.made(root, workspaces)
    kept = {_md5(path) for path in served}
    here: dict[str, list[Path]] = {}  # hash of a manifest -> files
    for one in made:
        for path, md5 in (*one.outs.items(), *one.deps.items()):
            if path.startswith(SPLIT) and path.endswith(".csv"):
                files = [*tracing.cached(root, md5), one.by.parent / path]
                here.setdefault(md5, []).extend(file for file in files if file.is_file())
    away = tracing.contents(root, [md5 for md5, files in here.items() if not files])
    begin = {md5 for md5, files in here.items() if any(map(lists, set(files)))}
    begin |= {md5 for md5, content in away.items() if lists(BytesIO(content))}
    begin |= {
        files[folder]
        for one in made
        for files in (one.outs, one.deps)
        if (folder := SPLIT.rstrip("/")) in files
        if any(md5 in begin for path, md5 in files.items() if path.startswith(SPLIT))
    }
    hashes = tracing.descend(made, begin, kept)
    # What another stage made too, of nothing to be forgotten, is left to it where it is small.
    taken, others = list[tuple[tracing.Made, str, str]](), set[str]()
    for one in made:
        is_of = not hashes.isdisjoint(one.deps.values())
        for path, md5 in one.outs.items():
            if md5 in begin or (is_of and md5 in hashes):
                taken.append((one, path, md5))
            else:
                others.add(md5)
    small = {md5 for one in made for md5 in one.small}
    names = {
        md5: path
        for _, path, md5 in taken
        if md5 not in others or not (md5 in small or tracing.is_small(root, md5))
    }
    for one in made:  # no stage that is known made it
        names |= {md5: path for path, md5 in one.deps.items() if md5 in begin - names.keys()}
    # A stage that ran without DVC left what no lock knows; one that never ran, what it was asked.
    found = (file for w in workspaces for file in sorted((w / SPLIT).glob("*.csv")))
    places, files = list[Place](), [file for file in found if lists(file)]
    asked = f"erasure-{request:04d}*" if request else "erasure-*"
    files += [file for w in workspaces for file in sorted((w / "requests").glob(asked))]
    for one, path, _ in taken:
        file = one.by.parent / path
        file = file.parent.resolve() / file.name
        if not (file.is_file() or file.is_symlink()):
            continue
        if not file.is_relative_to(one.by.parent.resolve()):
            places.append(Place(str(file), _holds(path), "it lies outside of its workspace"))
        elif (inside := one.by.parent / file.relative_to(one.by.parent.resolve())) not in files:
            files.append(inside)
    for workspace in workspaces[1:]:
        if any(file.is_relative_to(workspace) for file in files):
            files = [file for file in files if not file.is_relative_to(workspace)] + [workspace]
    for file in files:
        name = _name(root, file)
        places.append(Place(name, _holds(name) if file.is_file() else "a run with all of them"))
    for md5, path in names.items():
        for file in tracing.cached(root, md5):
            shared = file.stat().st_size < tracing.SMALL and not file.is_relative_to(root)
            files += [] if shared else [file]
            holds = f"in DVC's cache: {path}, {_holds(path)}"
            places.append(Place(_name(root, file), holds, SHARED if shared else ""))
    unread = [(f, "a link, which is not followed") for f in cells if f.is_symlink()]
    unread += [(one.by, "it cannot be read") for one in made if one.torn]
    places += [Place(_name(root, f), "it is not known", why) for f, why in dict(unread).items()]
    places += _in_remotes(root, names)
    logged = forgetting.remembering(store, lists)
    places += [Place(f"MLflow run {one.run}", one.holds) for one in logged]
    files.sort(key=lambda f: f.is_dir() or f.suffix == ".csv" or f.parent.name + f.name in begin)
    return Residue([*places, *_data(store.workspace, root, marks)], files, names, logged)


def resume(plan: Path, found: Residue) -> Residue:
    """``found``, with what a removal that was killed had yet to remove. plan: its file."""
    if not plan.is_file():
        return found
    old = artifacts.read_json(plan)
    logged = [forgetting.Logged(r, tuple(m), tuple(p), h) for r, m, p, h in old["logged"]]
    runs = {one.run for one in found.logged}
    files, places = [Path(file) for file in old["files"]], [Place(*p) for p in old["places"]]
    return Residue(
        list(dict.fromkeys([*(p for p in places if not p.kept), *found.places])),
        list(dict.fromkeys([*files, *found.files])),
        old["objects"] | found.objects,
        [*found.logged, *(one for one in logged if one.run not in runs)],
    )


def remove(root: Path, store: Store, found: Residue, plan: Path) -> list[Place]:
    """Remove all that has no reason to be kept; returns what of it is still there.

    plan: where that is written first, for ``resume``: what was removed lets the rest be found no
    more.
    """
    plan.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = [str(file) for file in found.files]
    artifacts.write_json(plan, {**found._asdict(), "files": files}, mode=0o600)
    list(tracing.in_remotes(root, found.objects, remove=True))
    left = [
        Place(f"MLflow run {one.run}", one.holds, why)
        for one, why in forgetting.remove(store, found.logged)
    ]
    for path in found.files:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            why = f"{type(error).__name__}: {error.strerror}"
            left.append(Place(_name(root, path), "what could not be removed", why))
    said = {place.where for place in left}
    still = [_name(root, path) for path in found.files if os.path.lexists(path)]
    left += [Place(name, "what could not be removed") for name in still if name not in said]
    return [*left, *_in_remotes(root, found.objects)]


def marks_of(root: Path, file: str, request: int) -> set[str]:
    """Of the samples of a request; 0: of all. file: the parameter split.forgotten_before."""
    table = artifacts.read_given(root / file, **dict.fromkeys(forgotten.COLUMNS, "str"))
    if "mark" not in table:
        return set()
    chosen = table if not request else table[table["request"] == str(request)]
    return set(chosen["mark"]) - {""}


def _data(workspace: Workspace, root: Path, marks: Collection[str]) -> Iterator[Place]:
    """The data themselves: they stay."""
    from tasks.data import samples_of

    name = params.section(workspace.root, "split.dataset")
    if not (workspace.root / "data" / name).is_dir():
        return
    samples = samples_of(workspace.dataset())
    listed = [forgotten.mark(i, s) for i, s in samples[["id", "sha256"]].to_numpy()]
    if count := sum(mark in marks for mark in listed):
        where = (workspace.root / "data" / name).relative_to(root)
        yield Place(str(where), f"{count} samples themselves", DATA)
        yield Place(
            f"data/{name} in DVC's cache and remotes, in every version, and in other clones",
            f"{count} samples themselves",
            DATA,
        )
        source = params.section(workspace.root, "data.path")
        yield Place(source, "what the data were made from, if it is there", "it is not ours")
    yield Place(
        "Prefect's database and logs",
        "names in the forms of requests, ids of copies in logs, if any",
        "delete those runs on their page",
    )


def _in_remotes(root: Path, objects: Mapping[str, str]) -> list[Place]:
    return [
        Place(
            f"DVC remote {remote}: {md5}",
            f"{objects[md5]}, {_holds(objects[md5])}",
            SHARED if small else "",
        )
        if md5
        else Place(f"DVC remote {remote}", "it is not known", "it did not answer")
        for remote, md5, small in tracing.in_remotes(root, objects)
    ] + [
        Place(f"DVC remote {remote}: the storage", "earlier versions, if it keeps any", STORAGE)
        for remote in tracing.storages(root)
    ]


def _lists(file: Path | BytesIO, marks: Collection[str]) -> bool:
    """Whether a manifest has one of the samples."""
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)[["id", "sha256"]]
    except (ValueError, KeyError):
        return False
    return any(forgotten.mark(i, s) in marks for i, s in rows.to_numpy())


def _name(root: Path, path: Path) -> str:
    """As a place has it: relative in workspaces, whole in DVC's cache."""
    in_cache = not path.is_relative_to(root) or path.is_relative_to(root / ".dvc")
    return str(path if in_cache else path.relative_to(root))


def _holds(path: str) -> str:
    at = path.find("runs/")
    return next((what for begin, what in KINDS.items() if path[at:].startswith(begin)), "of them")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
