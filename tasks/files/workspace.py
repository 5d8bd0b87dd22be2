"""Where everything lies, and what several stages read the same way."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from imu import discovery
from imu.bounds import check_fields
from tasks.files import artifacts, params

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from imu.datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Runtime:
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1  # CPU threads of a process; another number may change the last bits
    processes: int = 1  # that share each batch where one network is trained; one GPU for each

    def __post_init__(self) -> None:
        check_fields(self, threads="in [1, 1024]", processes="in [1, 1024]")


Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as ``imu.bounds.SEED``
OWN = "own"  # folder of what the user brings; stages that build networks depend on it
BASELINES = ("nothing", "logit_mask", "token_mask", "refuse")  # methods that do not unlearn
NOT_RETRAINED = "absent: original.retrain is false"


@dataclass(frozen=True, kw_only=True)
class Pixels:
    mean: tuple[float, ...] = ()  # per channel, of images in [0, 1]; none: the data set's own
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be of one length, got {self.mean} and {self.std}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be > 0, got {self.std}")


@dataclass(frozen=True, kw_only=True)
class Original:
    checkpoint: str = ""  # a file in ``OWN``: weights for ``network`` instead of training it
    retrain: bool = True  # False: nothing is retrained, and what needs a reference is absent

    def __post_init__(self) -> None:
        path = Path(self.checkpoint)
        if self.checkpoint and (path.parts[0] != OWN or ".." in path.parts):
            raise ValueError(f"checkpoint must be a file in {OWN}/, got {self.checkpoint!r}")


@dataclass(frozen=True)
class Workspace:
    """A folder with ``params.yaml``, ``dvc.yaml``, ``data/`` and ``runs/``."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def manifest(self, name: str) -> Path:
        return self.runs / "split" / f"{name}.csv"

    @property
    def request(self) -> Path:
        return self.runs / "split" / "request.json"

    def model(self, producer: str) -> Path:
        """``producer`` is "train", "retrain/<item>" or "unlearn/<item>"."""
        return self.runs / producer / "model.safetensors"

    @property
    def influence(self) -> Path:
        return self.runs / "influence" / "influence.parquet"

    def evaluation(self, producer: str) -> Path:
        """Folder of what was found of the model of ``producer``, named as in ``model``."""
        return self.runs / "evaluate" / producer

    def failure(self, producer: str) -> Path:
        """A text in JSON: why a method left no model to evaluate; "" where it left one."""
        return self.evaluation(producer) / "failure.json"

    def per_sample(self, item: str) -> Path:
        """Folder of what many networks say of the entry ``item``."""
        return self.runs / "evaluate" / "per_sample" / item

    def margins(self, family: str) -> Path:
        """What each network of a family says of each sample."""
        return self.runs / "evaluate" / "ensemble" / family / "margins.safetensors"

    @property
    def seed(self) -> int:
        return params.load(self.root, "seed", Seed)

    @property
    def original(self) -> Original:
        return params.load(self.root, "original", Original)

    def dataset(self) -> "Dataset":
        """The data set of ``params.yaml``, images normalised as ``pixels`` says.

        Raises ValueError when ``pixels`` has not one number per channel, and ParameterError where
        there are no pixels.
        """
        from imu.datasets import LabelledImages

        name = params.section(self.root, "split.dataset")
        data: Dataset = discovery.load("imu.datasets", name).load(self.root / "data" / name)
        pixels = params.load(self.root, "pixels", Pixels)
        if not pixels.mean:
            return data
        if not isinstance(data, LabelledImages):
            raise params.ParameterError(
                f"{params.FILE}: pixels.mean must be [] where the data set ({name}) has no images"
            )
        return replace(data, mean=pixels.mean, std=pixels.std)

    def read_manifest(self, name: str) -> "pd.DataFrame":
        return artifacts.read_table(self.manifest(name), id="str", sha256="str")

    def rows(self, name: str, data: "Dataset") -> list[int]:
        """Rows of ``data`` that the manifest ``name`` lists, and no others.

        Raises ArtifactError when a sample is not the one that was split (its SHA-256 differs).
        """
        manifest = self.read_manifest(name)
        rows = manifest["index"].tolist()
        for row, expected in zip(rows, manifest["sha256"], strict=True):
            if digest(data, row) != expected:
                raise artifacts.ArtifactError(
                    f"sample {row} of data/ is not the one listed in {self.manifest(name)}: "
                    "the data changed after the split; run `dvc repro split`"
                )
        return rows

    def read_influence(self) -> "pd.DataFrame":
        """Influence of every forget sample, in the order of the manifest.

        Raises ArtifactError when the table lists other samples than the forget set.
        """
        table = artifacts.read_table(self.influence).astype({"id": "str"})
        if table["id"].tolist() != self.read_manifest("forget")["id"].tolist():
            raise artifacts.ArtifactError(
                f"{self.influence} lists other samples than the forget set: "
                "run `dvc repro influence`"
            )
        return table

    def read_request(self) -> dict[str, Any]:
        return artifacts.read_json(self.request)

    def device(self) -> "torch.device":
        """The device of ``params.yaml``; threads and deterministic algorithms are set as well."""
        import torch

        runtime = params.load(self.root, "runtime", Runtime)
        if runtime.device == "cuda":
            if not torch.cuda.is_available():
                raise params.ParameterError(
                    f"{params.FILE}: runtime.device is 'cuda', but torch finds no GPU here"
                )
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(runtime.threads)
        # Same switch as use_deterministic_algorithms, which imports the compiler first (2 s).
        torch.set_deterministic_debug_mode("error")
        # Nothing here reads what was not written; on a GPU it is a launch more for every tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return torch.device(runtime.device)

    def new_model(
        self, data: "Dataset", seed: int, section: str = "network"
    ) -> tuple["nn.Module", dict[str, Any]]:
        """A network initialised from ``seed``, and the description ``load_model`` needs.

        section: of ``params.yaml``, which names the network and its configuration.

        Raises ParameterError for a network of another kind than the data.
        """
        import torch

        name = params.section(self.root, f"{section}.name")
        module = discovery.load("imu.models", name)
        objective = discovery.load("imu.objectives", data.objective)
        kind = getattr(module, "OBJECTIVE", "classification")
        if kind != getattr(objective, "NETWORKS", data.objective):
            raise params.ParameterError(
                f"{params.FILE}: {section}.name: {name} is a network for {kind}, and the data set "
                f"({params.section(self.root, 'split.dataset')}) is for {data.objective}"
            )
        config = params.load(self.root, section, module.Config, without=("name",))
        about = {
            "objective": data.objective,
            "network": name,
            "config": asdict(config),
            **objective.described(data, module, config),
        }
        if hasattr(module, "source_sha256"):
            about["source"] = module.source_sha256(config)
        torch.manual_seed(seed)
        begun = getattr(objective, "begun", objective.built)
        return begun(module, config, about), about


def load_model(path: Path) -> tuple["nn.Module", dict[str, Any]]:
    """The network stored at ``path``, and its description. Raises ArtifactError."""
    tensors, about = artifacts.read_tensors(path)
    return built(path, tensors, about), about


def built(path: Path, tensors: dict[str, "torch.Tensor"], about: dict[str, Any]) -> "nn.Module":
    """The network that ``about`` describes, with the given weights, which came from ``path``.

    Raises ArtifactError when the two do not fit.
    """
    try:
        module = discovery.load("imu.models", about["network"])
        config = module.Config(**about["config"])
        if "source" in about and module.source_sha256(config) != about["source"]:
            raise ValueError(f"the code of {config.factory} changed after; run `dvc repro -f`")
        objective = discovery.load("imu.objectives", about["objective"])
        model: nn.Module = objective.built(module, config, about)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise artifacts.ArtifactError(
            f"{path} does not hold the network it names: {error}"
        ) from error
    return model


def digest(data: "Dataset", row: int) -> str:
    """SHA-256 of one sample."""
    return hashlib.sha256(data.content(row)).hexdigest()


def baselines(entries: dict[str, Any]) -> dict[str, Any]:
    """Of a section ``unlearn`` the entries that do not unlearn."""
    return {name: entry for name, entry in entries.items() if entry["method"] in BASELINES}


class Stopwatch:
    """Seconds spent inside its ``with`` blocks; waits for the GPU where there is one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begin = perf_counter()
        yield
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.seconds += perf_counter() - begin
