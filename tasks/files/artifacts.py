"""Stage outputs on disk: safetensors, parquet, CSV and JSON, each written all or not at all."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

TIED = "tied"  # in a file of tensors: further name -> the name under which that tensor is stored
COLUMNS = 1000  # of a table, at most


class ArtifactError(RuntimeError):
    """A file is missing, truncated or of the wrong kind, or cannot be written."""


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name when the block ends without error.

    mode: whose it is then; before, it is its owner's alone.

    The content is flushed to disk before the rename, so a kill or a power cut leaves either the
    old file or the new one. What a kill leaves behind is hidden (``.name.*``) and removed by the
    next write of the same file. Raises ArtifactError, naming ``path``, where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # a full disk's does not say which file was written
        raise ArtifactError(f"{path} could not be written: {error.strerror or error}") from error


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    with replacing(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any, mode: int = 0o644) -> None:
    """JSON with sorted keys is avoided: the order of a table's columns is kept."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", mode)


def read_json(path: Path) -> Any:
    require(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(_damaged(path, error)) from error


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """CSV or parquet, by the suffix of ``path``."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def read_table(path: Path, **types: str) -> "pd.DataFrame":
    """A CSV or parquet table of ours; ``types`` fixes the type of CSV columns.

    Text stays as it is: an id may be "NA", and an empty one is "".
    """
    require(path)
    try:
        return _table(path, types)
    except (ValueError, OSError) as error:
        raise ArtifactError(_damaged(path, error)) from error


def read_given(path: Path, **types: str) -> "pd.DataFrame":
    """The same of a table that the user brought: it is not ours to restore."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    try:
        return _table(path, types)
    except (ValueError, OSError) as error:
        kind = "parquet" if path.suffix == ".parquet" else "CSV"
        raise ArtifactError(f"{path} is not a readable {kind} table: {error}") from error


def _table(path: Path, types: dict[str, str]) -> "pd.DataFrame":
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            header = next(csv.reader(file), [])
        except csv.Error as error:
            raise ValueError(str(error)) from error
    if len(header) > COLUMNS:  # of equal names pandas needs time that grows with their square
        raise ValueError(f"it must have at most {COLUMNS} columns, got {len(header)}")
    numbers = [name for name in pd.read_csv(path, nrows=0) if types.get(name) != "str"]
    absent = {name: ["", "nan", "NaN"] for name in numbers}
    return pd.read_csv(path, dtype=types or None, keep_default_na=False, na_values=absent)


def write_tensors(path: Path, tensors: dict[str, "Tensor"], about: dict[str, Any]) -> None:
    """safetensors, with ``about`` as JSON in its header.

    A tensor that has several names, as those of a layer in two places have, is stored once; its
    other names stand in the header. The header has one key: with several, safetensors writes them
    in changing order.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content, tied = _once(tensors)
    described = about | ({TIED: tied} if tied else {})
    with replacing(path) as temporary:
        try:
            save_file(content, temporary, metadata={"about": json.dumps(described)})
        except SafetensorError as error:  # neither an OSError nor a RuntimeError
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Tensors and ``about`` of a file from ``write_tensors``; nothing is unpickled."""
    from safetensors import SafetensorError, safe_open

    require(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tied = about.pop(TIED, {})
            return found | {name: found[stored] for name, stored in tied.items()}, about
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ArtifactError(_damaged(path, error)) from error


def _once(tensors: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Every tensor under its first name, on the CPU, and for its other names that first one."""
    import torch

    content: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, tensor in tensors.items():
        memory = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.data_ptr() and memory in first:  # 0: there is no memory that could be shared
            tied[name] = first[memory]
            continue
        first[memory] = name
        # A copy, as safetensors refuses tensors that overlap.
        content[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return content, tied


def read_about(path: Path) -> dict[str, Any]:
    """``about`` of a file from ``write_tensors``, without its tensors and without torch."""
    from safetensors import SafetensorError, safe_open

    require(path)
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["about"])
            return about
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ArtifactError(_damaged(path, error)) from error


def require(path: Path) -> None:
    """Raises ArtifactError when there is no such file."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: restore it with `dvc checkout` or `dvc repro`")


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is truncated or damaged ({type(error).__name__}: {error}): "
        "delete it and restore it with `dvc checkout` or `dvc repro`"
    )
