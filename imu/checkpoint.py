"""Weights from elsewhere, read without running any code.

A pickle is a program: to load one runs what is in it. Files of ``torch.save`` are therefore read
as tensors and plain containers alone, and refused where they hold more.
"""

import json
import pickle
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# Where training programs put the weights; of several that fit the first is taken.
NESTED = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "ema")
DEPTH = 2  # of containers within containers
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
SHOWN = 5  # names in a message

# Objects that do no more than hold a value, as ``torch.serialization.add_safe_globals`` takes them.
HARMLESS = {
    "argparse.Namespace": "argparse.Namespace",
    "numpy.dtype": 'numpy.dtype, *map(type, map(numpy.dtype, "?bhilqBHILQefd"))',
    "numpy.ndarray": "numpy.ndarray",
    "numpy._core.multiarray.scalar": "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct": "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar": (
        '(numpy._core.multiarray.scalar, "numpy.core.multiarray.scalar")'
    ),
    "numpy.core.multiarray._reconstruct": (
        '(numpy._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")'
    ),
}


def read(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts in ``path`` by where they are, each with its tensors by name, on the CPU.

    path: a safetensors file, or one of ``torch.save`` that holds a state dict, alone (its place is
    then "") or in containers, as "state_dict" or "ema.model". In the order of ``NESTED``, then in
    that of the file.

    Raises FileNotFoundError, and ValueError for a file that is damaged, no file of weights, holds
    more than tensors and plain values, or no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    _refuse_text(path)
    if _is_safetensors(path):
        try:
            return {"": load_file(path)}
        except SafetensorError as error:
            raise ValueError(f"{path} is truncated or damaged: {error}") from error
    content = _unpickled(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold tensors by name, got {type(content).__name__}")
    found = dict(_state_dicts(content))
    if not found:
        raise ValueError(
            f"{path} must hold tensors by name, alone or below a name such as "
            f"{', '.join(NESTED)}; it holds {_first([str(name) for name in content]) or 'nothing'}"
        )
    places = {name: place for place, name in enumerate(NESTED)}
    return {at: found[at] for at in sorted(found, key=lambda at: places.get(at, len(places)))}


def load_into(model: nn.Module, path: Path) -> list[str]:
    """Load the weights in ``path`` into ``model``: all that it has, and no others.

    Of several state dicts the one that has most of the names is taken; before the names may stand
    one prefix, as "model." of Lightning. Of a tensor that the network has in two places one name
    is enough. Returns what a user should know: which of several was taken, which prefix was left
    out, and which tensors do not have it and were left out too.

    Raises ValueError, naming tensors, when some are missing, unexpected, of another shape or kind
    (integers for real numbers), sparse, without numbers, not finite, or differ though the network
    has one tensor for both; the model is then as it was. And what ``read`` raises.
    """
    inside, own = read(path), model.state_dict()
    names = dict(zip(_bare(own), own, strict=True))  # without prefix -> with it
    wanted = {name: own[full] for name, full in names.items() if isinstance(own[full], Tensor)}
    at, prefix, remarks = _chosen(inside, wanted)
    given = {n.removeprefix(prefix): t for n, t in inside[at].items() if n.startswith(prefix)}
    if left := [name for name in inside[at] if not name.startswith(prefix)]:
        remarks.append(f"left out: {_first(left)}")
    if bare := _few("sparse, or without numbers", (n for n in given if not _is_whole(given[n]))):
        raise ValueError(f"{path} does not fit {type(model).__name__}: {bare}")
    torn = []
    for names_of_one in _tied(wanted):
        known = [name for name in names_of_one if name in given]
        torn += [name for name in known[1:] if not torch.equal(given[name], given[known[0]])]
        given |= {name: given[known[0]] for name in names_of_one if known and name not in given}
    both = [name for name in wanted if name in given]
    problems = [
        _few("missing", (name for name in wanted if name not in given and not _counts(name))),
        _few("unexpected", (name for name in given if name not in wanted)),
        _few(
            "of another shape or kind",
            (
                f"{name} ({_about(given[name])}, not {_about(wanted[name])})"
                for name in both
                if not _fits(given[name], wanted[name])
            ),
        ),
        _few("not finite", (name for name in both if not given[name].isfinite().all())),
        _few("other than its twin, with which the network shares it", torn),
    ]
    if found := "; ".join(filter(None, problems)):
        place = f"{path}, {at!r}," if at else str(path)
        raise ValueError(f"{place} does not fit {type(model).__name__}: {found}")
    model.load_state_dict({names[name]: tensor for name, tensor in given.items()})
    return remarks


class _Choice(NamedTuple):
    at: str
    prefix: str
    remarks: list[str]


def _chosen(inside: Mapping[str, Mapping[str, Tensor]], wanted: Mapping[str, Any]) -> _Choice:
    """Which of the state dicts ``inside`` a file has most of the names ``wanted``, after what."""
    found: Counter[tuple[str, str]] = Counter()
    for at, tensors in inside.items():
        found[at, ""] += 0
        for name in tensors:
            for prefix, rest in _cuts(name):
                found[at, prefix] += rest in wanted
    (at, prefix), most = found.most_common(1)[0]  # the first of equals
    remarks = []
    others = [other for other, count in found.items() if count == most and other != (at, prefix)]
    if others and most:
        remarks.append(
            f"several sets of weights fit: taken are {_place(at, prefix)}, "
            f"not {', '.join(_place(*other) for other in others)}"
        )
    elif len(inside) > 1:
        rest = ", ".join(repr(other) for other in inside if other != at)
        remarks.append(f"taken are the weights in {at!r}, not those in {rest}")
    if prefix:
        remarks.append(f"names begin with {prefix!r} there, which is left out")
    return _Choice(at, prefix, remarks)


def _place(at: str, prefix: str) -> str:
    return repr(".".join(filter(None, (at, prefix.removesuffix(".")))))


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """``name`` cut before each of its parts: "a.b" -> ("", "a.b"), ("a.", "b")."""
    parts = name.split(".")
    for at in range(len(parts)):
        rest = ".".join(parts[at:])
        yield name.removesuffix(rest), rest


def _tied(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of one and the same tensor, where it has several."""
    places: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            places.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    return [names for names in places.values() if len(names) > 1]


def _bare(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors`` without the ``PREFIXES`` that all their names share."""
    found = dict(tensors)
    while found and (shared := [p for p in PREFIXES if all(name.startswith(p) for name in found)]):
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
    return found


def _refuse_text(path: Path) -> None:
    """Raises ValueError for what a failed download leaves in place of weights."""
    with path.open("rb") as file:
        begin = file.read(256)
    if begin.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a pointer of git-LFS, not the weights: `git lfs pull` in the repository "
            "that it comes from fetches them"
        )
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page, not weights: the download led to a page, of a login or an "
            "error perhaps; open it in a browser"
        )
    if (
        begin
        and begin.isascii()
        and all(letter.isprintable() or letter in "\n\r\t" for letter in begin.decode())
    ):
        raise ValueError(f"{path} is text, not weights: it begins with {begin[:40].decode()!r}")


def _is_safetensors(path: Path) -> bool:
    """By content, as names mislead: the length of a header (8 bytes), then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch's own, for pickles that it did not write; it goes on to read or refuse them.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words are not passed on: they advise to run what is in the file.
        raise ValueError(_refused(path, str(error))) from error
    except Exception as error:  # what torch raises for a damaged file depends on the damage
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path} is a program of TorchScript, not weights. Where it was made, "
                f"{_saved(path)} writes them"
            ) from error
        raise ValueError(
            f"{path} is truncated, damaged or no file of weights: {type(error).__name__}"
            f"{f': {error}' if 'weights_only' not in str(error) else ''}"
        ) from error


def _refused(path: Path, reason: str) -> str:
    """Why a pickle was not loaded, and how to get at its weights."""
    try:
        blocking = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of a file before torch 1.6, or none of torch's
        blocking = re.findall(r"Unsupported global: GLOBAL (\S+)", reason)
    if not blocking:
        return (
            f"{path} holds more than weights, is damaged, or no file of weights. It was not "
            "loaded, as a pickle can run code. Allowed are safetensors, and what "
            f"{_saved(path)} writes"
        )
    # In files of old the rest is not seen; a number of numpy never comes without its type.
    types = {"numpy.dtype"} if any(name.startswith("numpy.") for name in blocking) else set()
    objects = sorted({*blocking, *types})
    said = (
        f"{path} holds more than weights: {_first(objects)}. It was not loaded, as a pickle can "
        "run code. "
    )
    if not all(name in HARMLESS for name in objects):
        return f"{said}Where it was made, {_saved(path)} writes the weights alone"
    modules = ", ".join(sorted({"torch", *(name.partition(".")[0] for name in objects)}))
    allowed = ", ".join(HARMLESS[name] for name in objects)
    source, target = json.dumps(str(path)), json.dumps(str(_beside(path)))
    code = (
        f"import {modules}; torch.serialization.add_safe_globals([{allowed}]); "
        f'torch.save({{k: v for k, v in torch.load({source}, map_location="cpu").items() '
        f"if k in {json.dumps(NESTED)}}}, {target})"
    )
    return f"{said}This line writes its weights alone: python -c {shlex.quote(code)}"


def _saved(path: Path) -> str:
    return f"torch.save(network.state_dict(), {_beside(path).name!r})"


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-weights.pt")


def _state_dicts(content: Mapping[Any, Any], at: str = "", depth: int = DEPTH) -> Iterator[Any]:
    """Where there are state dicts in ``content``, and these."""
    if _only_tensors(content):
        yield at, dict(content)
    elif depth:
        for name, part in content.items():
            if isinstance(name, str) and isinstance(part, Mapping):
                yield from _state_dicts(part, f"{at}.{name}" if at else name, depth - 1)


def _only_tensors(content: Mapping[Any, Any]) -> bool:
    return len(content) > 0 and all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in content.items()
    )


def _counts(name: str) -> bool:
    """A number that BatchNorm's averages do not use; files from before 2018 are without it."""
    return name.endswith("num_batches_tracked")


def _fits(given: Tensor, wanted: Tensor) -> bool:
    same = given.is_floating_point() == wanted.is_floating_point()
    return same and given.shape == wanted.shape


def _is_whole(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


def _about(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _few(what: str, names: Iterable[str]) -> str:
    """How many there are, ``what`` they are and the first of them; nothing when there are none."""
    listed = list(names)
    return f"{len(listed)} {what}: {_first(listed)}" if listed else ""


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
