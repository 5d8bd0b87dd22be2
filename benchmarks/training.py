"""Loading, augmentation and training (``imu.training``) against a loop over torch's DataLoader.

    make bench                                     writes docs/benchmarks.md
    python -m benchmarks.training --device cuda    writes docs/benchmarks-cuda.md
    python -m benchmarks.training --quick          small sizes, writes nothing

Random images of 32×32 pixels and three channels: times do not depend on what they show. All ways
run in one process, in turn; reported are medians, and ratios of neighbouring runs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as pictures

from benchmarks.influence import exponent, resnet18, synchronise
from imu import training
from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.influences import Config as Influence
from imu.influences import influence
from imu.models import resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification, normalised
from imu.training import loading
from imu.training.distributed import ALONE
from imu.training.feeds.classification import batches, draws, sourced

CPU = torch.device("cpu")
CLASSES, SHAPE = 10, (3, 32, 32)
MEAN, STD = (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)
RECIPE = training.Config(shift=4, flip=True, batch_size=128, workers=2)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    repeats: int = 5
    piped: int = 4096  # images that pass through the pipeline alone
    trained: int = 512  # with the small ResNet
    deep: int = 64  # with ResNet-18
    mapped: int = 100_000  # in the file whose memory is measured
    growing: tuple[int, ...] = (1000, 2000, 4000, 8000)


QUICK = Sizes(repeats=2, piped=512, trained=128, deep=8, mapped=20_000, growing=(250, 500))
GPU = Sizes(piped=50_000, trained=25_600, deep=12_800, mapped=100_000)


def images(n: int) -> LabelledImages:
    draw = np.random.default_rng(0)
    return LabelledImages(
        images=draw.integers(0, 256, (n, *SHAPE), dtype=np.uint8),
        labels=draw.integers(0, CLASSES, n),
        ids=np.arange(n).astype(str),
        classes=tuple(map(str, range(CLASSES))),
        scale=255.0,
        mean=MEAN,
        std=STD,
    )


class Pictures(Dataset[tuple[Tensor, int]]):
    """One sample after the other, as torchvision's own data sets give them."""

    def __init__(self, data: LabelledImages) -> None:
        self.pictures = data.images.transpose(0, 2, 3, 1)
        self.labels = data.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SHAPE[1:], padding=RECIPE.shift),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(pictures.to_pil_image(self.pictures[index])), self.labels[index]


def dataloader(
    data: LabelledImages, config: training.Config, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(
        Pictures(data),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def moved_to(batches: Iterable[Sequence[Tensor]], device: torch.device) -> Iterator[loading.Batch]:
    for inputs, labels in batches:
        yield inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def ours(
    data: LabelledImages, config: training.Config, device: torch.device
) -> Callable[[], Iterator[loading.Batch]]:
    n = len(data.labels)
    source = sourced(data, list(range(n)), config, device, ALONE)
    generator = torch.Generator().manual_seed(0)

    def epoch() -> Iterator[loading.Batch]:
        drawn = draws(n, config, generator)
        for inputs, labels in batches(source, drawn, config):
            yield normalised(inputs, data.scale, data.mean, data.std), labels

    return epoch


def consume(epoch: Callable[[], Iterator[loading.Batch]]) -> None:
    for _ in epoch():
        pass


@dataclass(frozen=True)
class Way:
    name: str
    run: Callable[[], object]  # one epoch


def seconds(call: Callable[[], object]) -> float:
    synchronise()
    begin = perf_counter()
    call()
    synchronise()
    return perf_counter() - begin


def shown(values: Sequence[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def compared(setting: str, n: int, ways: Sequence[Way], repeats: int) -> list[str]:
    """Images per second of every way, and how many times faster the last ways are than them."""
    for way in ways:
        way.run()
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            times[way.name].append(seconds(way.run))
    lines = []
    for way in ways:
        faster = [a / b for a, b in zip(times[way.name], times[ways[0].name], strict=True)]
        ratio = "" if way is ways[0] else shown(faster, 2)
        rate = shown([n / t for t in times[way.name]])
        lines.append(f"| {setting} | {way.name} | {rate} | {ratio} |")
        print(lines[-1], flush=True)
    return lines


def whole(n: int, config: training.Config) -> int:
    """Images of an epoch, which leaves an incomplete batch out."""
    return n // config.batch_size * config.batch_size


def pipelines(device: torch.device, sizes: Sizes) -> list[str]:
    data = images(sizes.piped)
    streamed = replace(RECIPE, memory_share=0.0)
    ways = [Way("imu, resident", partial(consume, ours(data, RECIPE, device)))]
    ways.append(Way("imu, streamed", partial(consume, ours(data, streamed, device))))
    for workers in (0, 2):
        loader = dataloader(data, RECIPE, workers, device)
        ways.append(
            Way(
                f"DataLoader, {workers} workers",
                partial(consume, partial(moved_to, loader, device)),
            )
        )
    return compared("data alone", whole(sizes.piped, RECIPE), ways, sizes.repeats)


def small() -> nn.Module:
    torch.manual_seed(0)
    return resnet_small.build(resnet_small.Config(width=32), SHAPE, CLASSES)


def loop(
    model: nn.Module,
    loader: DataLoader[tuple[Tensor, Tensor]],
    config: training.Config,
    device: torch.device,
) -> Iterator[None]:
    """The plain program: one epoch per step of the iterator."""
    model.to(device)
    steps = config.epochs * len(loader)
    optimizer = training.descent(model.parameters(), config, steps)
    for _ in range(config.epochs):
        model.train()
        for inputs, labels in moved_to(loader, device):
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield


def trainings(
    name: str, build: Callable[[], nn.Module], n: int, device: torch.device, sizes: Sizes
) -> list[str]:
    data = images(n)
    config = replace(RECIPE, batch_size=min(n // 2, 128), epochs=sizes.repeats + 1)
    fit = training.fit(build().to(device), data, list(range(n)), config, seed=0, device=device)
    ways = [Way("imu", partial(next, fit))]
    for workers in (0, 2):
        plain = loop(build(), dataloader(data, config, workers, device), config, device)
        ways.append(Way(f"DataLoader, {workers} workers", partial(next, plain)))
    return compared(name, whole(n, config), ways, sizes.repeats)


def peaks(sizes: Sizes) -> list[str]:
    """Peak memory of a process of its own that reads an epoch from a memory map."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images(sizes.mapped).images)
        size = path.stat().st_size / 1e6
        for name, share in (("resident", 1.0), ("streamed", 0.0)):
            found = [
                float(
                    subprocess.run(
                        [sys.executable, "-m", "benchmarks.training", "--reads", path, str(share)],
                        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"},
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for _ in range(min(3, sizes.repeats))
            ]
            lines.append(f"| {name} | {sizes.mapped:,} | {size:,.0f} | {shown(found)} |")
            print(lines[-1], flush=True)
    return lines


def read(path: Path, share: float) -> None:
    """Prints by how many MB an epoch raises this process's peak."""
    stored = np.load(path, mmap_mode="r")
    config = replace(RECIPE, memory_share=share, batch_size=512)
    consume(ours(images(512), config, CPU))  # what is imported on first use does not count
    data = LabelledImages(
        images=stored,
        labels=np.zeros(len(stored), np.int64),
        ids=np.zeros(len(stored), str),
        classes=("all",),
        scale=255.0,
        mean=MEAN,
        std=STD,
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = peak()
    consume(ours(data, config, CPU))
    print(peak() - before)


def peak() -> float:
    """Most memory that this process has had, MB; ``ru_maxrss`` would include its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")


def growth(device: torch.device, sizes: Sizes) -> list[str]:
    lines = []
    times: dict[str, list[list[float]]] = {"epoch of training": [], "influence of all": []}
    for n in sizes.growing:
        data = images(n)
        rows = list(range(n))
        torch.manual_seed(0)
        model = resnet_small.build(resnet_small.Config(width=8), SHAPE, CLASSES).to(device)
        config = replace(RECIPE, epochs=4, batch_size=125)
        fit = training.fit(model, data, rows, config, seed=0, device=device)
        next(fit)
        times["epoch of training"].append([seconds(partial(next, fit)) for _ in range(3)])
        task = Classification(mean=MEAN, std=STD)
        samples = Samples(*pixels(data, rows, device))
        scores = partial(influence, model.eval(), task, samples, Influence())
        scores()
        times["influence of all"].append([seconds(scores) for _ in range(3)])
    for name, found in times.items():
        medians = [median(each) for each in found]
        cells = ", ".join(f"{n:,}: {t:.3g}" for n, t in zip(sizes.growing, medians, strict=True))
        lines.append(f"| {name} | {cells} | {exponent(sizes.growing, medians):.2f} |")
        print(lines[-1], flush=True)
    return lines


def ceiling(repeats: int) -> float:
    """FLOP/s of a product of large bfloat16 matrices, the fastest of several."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return max(
        20 * 2 * 8192**3 / seconds(lambda: [a @ b for _ in range(20)]) for _ in range(repeats)
    )


def matrix_units(sizes: Sizes) -> list[str]:
    """ResNet-18 with one option more in every row, against the ceiling."""
    from tasks.train import operations  # not before: `benchmarks.gpu` runs without its packages

    device, data = torch.device("cuda"), images(sizes.deep)
    most = ceiling(sizes.repeats)
    lines = [f"| product of matrices, bfloat16 | | {most / 1e12:.1f} | 100 |"]
    config = replace(RECIPE, batch_size=512, epochs=sizes.repeats + 2)
    options: list[tuple[str, training.Config]] = [("float32", config)]
    for name, change in (
        ("channels last", {"channels_last": True}),
        ("bfloat16", {"precision": "bfloat16"}),
        ("compiled", {"compile": True}),
    ):
        options.append((f"{options[-1][0]}, {name}", replace(options[-1][1], **change)))
    n = whole(sizes.deep, config)
    for name, each in options:
        model = resnet18().to(device)
        work = operations(model, data, sizes.deep, replace(each, epochs=1), device)
        rows = list(range(sizes.deep))
        fit = training.fit(model, data, rows, each, seed=0, device=device)
        for _ in range(2):
            next(fit)
        times = [seconds(partial(next, fit)) for _ in range(sizes.repeats)]
        reached = work / median(times)
        lines.append(
            f"| ResNet-18, {name} | {shown([n / t for t in times])} | {reached / 1e12:.1f} | "
            f"{100 * reached / most:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def page(device: torch.device, sizes: Sizes) -> str:
    from tasks.pages import tables

    command = "make bench"
    where = "CPU, 1 thread"
    if device.type == "cuda":
        command = f"python -m benchmarks.training --device {device}"
        where = torch.cuda.get_device_name(device)
    gpu = (
        [
            "| what | images per second | TFLOP/s | % of the ceiling |",
            "| --- | --- | --- | --- |",
            *matrix_units(sizes),
        ]
        if device.type == "cuda"
        else ["Not measured: this machine has no GPU."]
    )
    lines = [
        "# Training\n",
        tables.provenance(command),
        f"{where}, torchvision {version('torchvision')}. Random images of 32×32 pixels, three "
        "channels; random shifts by up to 4 pixels, flips, normalisation, batches of "
        f"{RECIPE.batch_size} where nothing else is said. All ways in turn in one process, "
        f"{sizes.repeats} times after one to warm up: median (smallest to largest). A ratio is of "
        "neighbouring runs: how many times faster imu, the first way, is. *DataLoader*: "
        "torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize on one image after "
        "the other; with it, the same steps of SGD and OneCycle in a plain loop.\n",
        "## Data and training\n",
        "| setting | way | images per second | × imu is faster |\n| --- | --- | --- | --- |",
        *pipelines(device, sizes),
        *trainings("small ResNet", small, sizes.trained, device, sizes),
        *trainings("ResNet-18", resnet18, sizes.deep, device, sizes),
        "\n## Memory\n",
        "By how much an epoch over a memory map raises the peak of a process, in one of its own "
        "each; pages of the file that it has read count. Where images stream, two other processes "
        "read them. Holes in the heap, which grow to some 300 MB where images stream, are kept out "
        "(MALLOC_MMAP_THRESHOLD_ is 1,000,000).\n",
        "| images | number | file, MB | peak, MB |\n| --- | --- | --- | --- |",
        *peaks(sizes),
        "\n## Growth with the number of images\n",
        "Small ResNet of width 8, influence on its head; medians of 3. Exponent: slope of log time "
        "over log size by least squares, 1 is linear.\n",
        "| what | images: s | exponent |\n| --- | --- | --- |",
        *growth(device, sizes),
        "\n## Matrix units\n",
        *gpu,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    # Not before: `benchmarks.gpu` runs without its packages.
    from tasks.starting import calling

    parser = calling.parser("benchmarks.training", __doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--reads", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Threads that wait for each other would measure what else the machine is doing.
    torch.set_num_threads(1)
    if options.reads:
        read(Path(options.reads[0]), float(options.reads[1]))
        return
    device = torch.device(options.device)
    sizes = QUICK if options.quick else GPU if device.type == "cuda" else Sizes()
    text = page(device, sizes)
    if options.quick:
        print(text)
        return
    from tasks.files import artifacts

    name = "benchmarks.md" if device.type == "cpu" else f"benchmarks-{device.type}.md"
    artifacts.write_text(Path.cwd() / "docs" / name, text)


if __name__ == "__main__":
    main()
