"""What all checks share: sizes, device and time left, estimates, results."""

import json
import math
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter, time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.gpu import images
from imu import discovery, influences, metrics, training, verdicts
from imu.cost import FlopCounter
from imu.datasets import LabelledImages
from imu.models import resnet18
from imu.objectives import Objective, Samples

Record = dict[str, Any]
CPU = torch.device("cpu")
# settings/cifar10.yaml, which needs a parser that a bare machine lacks; a test compares the two.
RECIPE = training.Config(
    epochs=20,
    batch_size=512,
    learning_rate=0.4,
    warmup=0.25,
    shift=4,
    flip=True,
    precision="bfloat16",
    channels_last=True,
)
FORGOTTEN = "cat"
REFERENCE = "reference"  # the one retrained model of a request
VALIDATION = 0.05
TRAINED, TESTED, HELD = 47_000, 10_000, 3_000  # samples of CIFAR-10, by that
SHARE_FORGOTTEN = 0.1


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of samples, and of repetitions, that depend on how much time there is."""

    network: str = "resnet18"
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: training.Config = RECIPE
    validation: float = VALIDATION
    drawn: tuple[int, int] = (5000, 1000)  # images of a class, training and test, where none come
    product: int = 8192  # side of the matrices
    steps: int = 50  # of training that are timed at once
    workers: int = 14  # processes of the DataLoader, and of attacks on a CPU
    retained: int = 5000  # samples that stand for the retain set where models are judged
    scored: int = 5000  # samples whose influence is computed
    looped: int = 64  # of these one by one
    seconds: tuple[float, float] = (20.0, 6.0)  # that a method may take: of the first, of others
    entries: tuple[str, ...] = ()  # methods and variants; none: all
    networks: tuple[str, ...] = ()  # of which two steps are trained; likewise
    attacked: int = 5  # models of a request that are relearned from


TINY = Sizes(
    network="resnet_small",
    config={"width": 4},
    recipe=replace(RECIPE, epochs=3, batch_size=25, learning_rate=0.2, shift=1),
    validation=0.1,
    drawn=(20, 10),
    product=64,
    steps=2,
    workers=1,
    retained=40,
    scored=24,
    looped=4,
    entries=("logit_mask", "imu", "ssd"),
    networks=("vit",),
    attacked=1,
)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """until: when the check must have ended, of ``time.time()``.

    language: parts of an archive with the folders ``smollm2`` and ``tofu``; () for none.
    """

    device: torch.device
    scratch: Path
    sizes: Sizes
    until: float = math.inf
    language: Sequence[Path] = ()

    def left(self) -> float:
        """Seconds."""
        return self.until - time()

    @property
    def photographs(self) -> bool:
        """Whether CIFAR-10 was unpacked; else images are drawn."""
        return (self.scratch / images.PACKED).exists()

    @cached_property
    def data(self) -> LabelledImages:
        return images.load(self.scratch) if self.photographs else images.drawn(self.sizes.drawn)

    def build(self) -> nn.Module:
        """A new network for the data, on the CPU."""
        module = discovery.load("imu.models", self.sizes.network)
        torch.manual_seed(0)
        network: nn.Module = module.build(
            module.Config(**self.sizes.config), self.data.images.shape[1:], len(self.data.classes)
        )
        return network

    def seconds(self, call: Any) -> float:
        """That a call takes, all that it started on the device included."""
        self.synchronise()
        begin = perf_counter()
        call()
        self.synchronise()
        return perf_counter() - begin

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def deterministic(device: torch.device) -> None:
    """Threads and algorithms as stages have them."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False


# Assumed for estimates: a quarter of what an H100 or H200 reaches in large bfloat16 products, what
# small float32 convolutions reach there, and one step of a small batch, bound by its launches.
BF16, FLOAT32, STEP = 200e12, 40e12, 0.009


class Work(NamedTuple):
    """Part of a check; ``seconds`` are estimated as ``how`` says."""

    what: str
    seconds: float
    how: str


def computing(what: str, flops: float, rate: float) -> Work:
    return Work(what, flops / rate, f"{flops / 1e12:,.0f} TFLOP at {rate / 1e12:.0f} TFLOP/s")


def operations(network: nn.Module, shape: tuple[int, ...], *, backward: bool) -> int:
    """For one image."""
    with FlopCounter() as counter, torch.set_grad_enabled(backward):
        # Shapes alone, no arithmetic.
        network.to("meta").eval()(torch.zeros(1, *shape, device="meta"))
    return counter.total


def of_resnet18(*, backward: bool) -> int:
    shape = (3, 32, 32)
    return operations(resnet18.build(resnet18.Config(), shape, 10), shape, backward=backward)


@contextmanager
def attempt(record: Record) -> Iterator[None]:
    """Notes in ``record`` what went wrong inside, and how many seconds it took."""
    begin = perf_counter()
    try:
        yield
    except Exception as error:
        traceback.print_exc()  # to the log
        at = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error).partition("\n")[0][:300]
        record["failed"] = f"{type(error).__name__}: {said} ({Path(at.filename).name}:{at.lineno})"
    record.setdefault("seconds", perf_counter() - begin)


def append(path: Path, record: Mapping[str, Any]) -> None:
    """One line, whole or not at all: several processes write."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(path: Path) -> list[Record]:
    """The results; a last line that was cut off is left out."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def ascent_weights(
    model: nn.Module, task: Objective, forget: Samples, config: influences.Config
) -> Tensor:
    """As the stage makes them: (n,)."""
    return influences.ascent_weights(
        influences.influence(model, task, forget, config),
        clip_quantile=config.clip_quantile,
        top_fraction=config.top_fraction,
    )[0]


def judgement(
    model: metrics.Measured,
    reference: metrics.Measured,
    labels: Mapping[str, list[int]],
    classes: tuple[int, ...],
) -> Record:
    """By the margins alone, on what is known of both. labels: of each set."""
    common = {key: v for key, v in reference.values.items() if key in model.values}
    values = metrics.compare(model, replace(reference, values=common))
    found = verdicts.judge(
        values,
        common,
        [],
        verdicts.Config(),
        sizes=verdicts.sizes(labels, classes),
        class_wise=bool(classes),
    )
    decisive = [result.test.metric for result in found.decisive]
    return {"values": values, "verdict": found.outcome, "decisive": decisive}


def of_runs(
    runs: Iterable[Record], judged: Mapping[str, Mapping[str, Any]], shown: Sequence[str]
) -> str:
    """A table of the reference and the methods, and the names of those for which no time was left.

    runs: in order. judged: by name.
    """
    tried, untried = [{"name": REFERENCE}], []
    for run in runs:
        (untried if "untried" in run else tried).append(run)
    rows = [line(run, judged.get(run["name"], {}), shown) for run in tried]
    names = ", ".join(run["name"] for run in untried)
    left = f"\nNot tried for want of time: {names}.\n" if names else ""
    return table(("model", "s", "steps", *shown, "margins"), rows) + left


def line(record: Record, judged: Mapping[str, Any], shown: Sequence[str]) -> Sequence[object]:
    """Name, seconds, steps, the metrics ``shown``, and the verdict with what decided it."""
    values = judged.get("values", {})
    cells = [f"{values[name]:.3g}" if name in values else "" for name in shown]
    said = judged.get("verdict", "")
    if judged.get("decisive"):
        said += f" ({', '.join(judged['decisive'])})"
    for failure in (record, judged):
        if "failed" in failure:
            said = f"failed: {failure['failed']}"
    seconds = f"{record['seconds']:.2f}" if "seconds" in record else ""
    if "stopped" in record:
        seconds += ", stopped"
    return (record["name"], seconds, record.get("steps", ""), *cells, said)
