"""Weights from elsewhere, read without running any code.

A pickle is a program: to load one runs what is in it. Files of ``torch.save`` are therefore read
with ``weights_only=True``, which knows tensors and plain containers and refuses the rest.
"""

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

NESTED = ("state_dict", "model", "model_state_dict")  # where training programs put the weights
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
SHOWN = 5  # names in a message


def read(path: Path) -> dict[str, Tensor]:
    """The weights in ``path`` by name, on the CPU.

    path: a safetensors file, or one of ``torch.save`` that holds a state dict, alone or under
    one of ``NESTED``. ``PREFIXES`` that all names share are taken away.

    Raises FileNotFoundError, and ValueError for a file that is damaged, holds more than tensors
    and plain values, or no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    if _is_safetensors(path):
        try:
            return bare(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} is truncated or damaged: {error}") from error
    return bare(_state_dict(_unpickled(path), path))


def load_into(model: nn.Module, path: Path) -> None:
    """Load the weights in ``path`` into ``model``, all of them and no others.

    Raises ValueError, naming tensors, when some are missing, unexpected, of another shape or kind
    (integers for real numbers), or not finite; the model is then as it was. And what ``read``
    raises.
    """
    given, own = read(path), model.state_dict()
    names = dict(zip(bare(own), own, strict=True))  # without prefix -> with it
    wanted = {name: own[full] for name, full in names.items() if isinstance(own[full], Tensor)}
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
    ]
    if found := "; ".join(filter(None, problems)):
        raise ValueError(f"{path} does not fit {type(model).__name__}: {found}")
    model.load_state_dict({names[name]: tensor for name, tensor in given.items()})


def bare(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors`` without the ``PREFIXES`` that all their names share."""
    found = dict(tensors)
    while found and (shared := [p for p in PREFIXES if all(name.startswith(p) for name in found)]):
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
    return found


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
        raise ValueError(
            f"{path} holds more than weights, or is damaged. It was not loaded, as a pickle can "
            "run code. Allowed are safetensors, and tensors by name as "
            "torch.save(model.state_dict(), path) writes them"
        ) from error
    except Exception as error:  # what torch raises for a damaged file depends on the damage
        raise ValueError(
            f"{path} is truncated, damaged or no file of weights: {type(error).__name__}: {error}"
        ) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold tensors by name, got {type(content).__name__}")
    if _only_tensors(content):
        return dict(content)
    nested = [name for name in NESTED if _only_tensors(content.get(name))]
    if len(nested) != 1:
        raise ValueError(
            f"{path} must hold tensors by name, alone or below one of {', '.join(NESTED)}; "
            f"it holds {_first([str(name) for name in content]) or 'nothing'}"
        )
    return dict(content[nested[0]])


def _only_tensors(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in content.items())
    )


def _counts(name: str) -> bool:
    """A number that BatchNorm's averages do not use; files from before 2018 are without it."""
    return name.endswith("num_batches_tracked")


def _fits(given: Tensor, wanted: Tensor) -> bool:
    same = given.is_floating_point() == wanted.is_floating_point()
    return same and given.shape == wanted.shape


def _about(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _few(what: str, names: Iterable[str]) -> str:
    """How many there are, ``what`` they are and the first of them; nothing when there are none."""
    listed = list(names)
    return f"{len(listed)} {what}: {_first(listed)}" if listed else ""


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
