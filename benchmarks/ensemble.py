"""Networks trained stacked (``imu.ensemble``) against the same networks trained one by one.

    make bench                       writes docs/ensemble.md
    python -m benchmarks.ensemble

Both ways train on the handwritten digits in one process, epoch by epoch in turn; reported are
times per step and member, and ratios of neighbouring epochs.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

import torch
from torch import nn

from imu import ensemble, training
from imu.datasets import LabelledImages, digits
from imu.datasets.common.tensors import pixels
from imu.models import resnet_small
from imu.objectives import predictions
from imu.objectives.classification import Classification
from tasks.files import artifacts
from tasks.pages import tables
from tasks.starting import calling

CPU = torch.device("cpu")
WIDTHS = (4, 8, 16, 32)
STACKS = (1, 4, 16, 64)  # members at once
PAIRS = 4
STEPS = 5  # of an epoch here
SINGLES = 4  # networks trained one by one in each pair
TRAINED = 1077  # images, as in the pipeline
WHOLE = (8, 16)  # width and members of the run that is not cut short


def networks(width: int, count: int) -> list[nn.Module]:
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(resnet_small.build(resnet_small.Config(width=width), (1, 8, 8), 10))
    return found


def one_by_one(
    models: list[nn.Module], data: LabelledImages, rows: list[int], config: training.Config
) -> list[Iterator[training.Epoch]]:
    return [
        training.fit(model, data, rows, config, seed=seed, device=CPU)
        for seed, model in enumerate(models)
    ]


def seconds(progress: list[Iterator[training.Epoch]]) -> float:
    """Of the next epoch of each."""
    begin = perf_counter()
    for each in progress:
        next(each)
    return perf_counter() - begin


def pairs(width: int, members: int, data: LabelledImages) -> list[tuple[float, float]]:
    """Milliseconds per step and member: one by one, and stacked."""
    config = training.Config(epochs=1 + PAIRS)
    rows = list(range(STEPS * config.batch_size))
    alone = one_by_one(networks(width, SINGLES), data, rows, config)
    models = networks(width, members)
    together = [
        ensemble.fit(models, data, rows, config, seeds=range(members), device=CPU, at_once=members)
    ]
    found = [
        (1000 * seconds(alone) / STEPS / SINGLES, 1000 * seconds(together) / STEPS / members)
        for _ in range(1 + PAIRS)
    ]
    return found[1:]  # the first epoch warms up


def row(width: int, members: int, data: LabelledImages) -> str:
    alone, together = zip(*pairs(width, members, data), strict=True)
    steps = TRAINED // training.Config().batch_size * training.Config().epochs
    cells = [
        f"{width}",
        f"{members}",
        spread(alone, 2),
        spread(together, 2),
        spread([a / b for a, b in zip(alone, together, strict=True)], 2),
        *(f"{64 * steps * mean(times) / 1000:.0f}" for times in (alone, together)),
    ]
    line = f"| {' | '.join(cells)} |"
    print(line, flush=True)
    return line


def whole(data: LabelledImages) -> list[str]:
    """Both ways from the first to the last epoch, with the accuracy on images left out."""
    width, members = WHOLE
    config = training.Config()
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0)).tolist()
    rows, held_out = order[:TRAINED], order[TRAINED:]
    images, labels = pixels(data, held_out, CPU)
    task = Classification(mean=data.mean, std=data.std, scale=data.scale)
    lines = []
    for name in ("one by one", "stacked"):
        models = networks(width, members)
        begin = perf_counter()
        if name == "stacked":
            list(ensemble.fit(models, data, rows, config, seeds=range(members), device=CPU))
        else:
            for progress in one_by_one(models, data, rows, config):
                list(progress)
        taken = perf_counter() - begin
        found = [predictions(model, task, images).argmax(1) for model in models]
        right = [100 * (each == labels).double().mean().item() for each in found]
        lines.append(f"| {name} | {taken:.1f} | {spread(right, 2)} |")
        print(lines[-1], flush=True)
    return lines


def spread(values: list[float] | tuple[float, ...], digits: int) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def main() -> None:
    calling.parser("benchmarks.ensemble", __doc__).parse_args()
    # Threads that wait for each other would measure what else the machine is doing.
    torch.set_num_threads(1)
    root = Path.cwd()
    data = digits.load(root / "data" / "digits")
    lines = [
        "# Ensembles\n",
        tables.provenance("make bench"),
        "Small ResNets on the handwritten digits, batches of 64, float32, 1 thread. *at once*: "
        "members of a stack. Milliseconds are per step and member, over "
        f"{PAIRS} pairs of epochs of {STEPS} steps, both ways in turn in one process, mean ± "
        "sample standard deviation; *ratio*: one by one over stacked, of neighbouring epochs. The "
        "last two columns are these times scaled to 64 networks of "
        f"{training.Config().epochs} epochs on {TRAINED:,} images.\n",
        "| width | at once | one by one, ms | stacked, ms | ratio | 64 one by one, s | "
        "64 stacked, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(row(width, members, data) for width in WIDTHS for members in STACKS),
        f"\nThe whole recipe, {WHOLE[1]} networks of width {WHOLE[0]}; accuracy on the images left "
        "out, mean ± sample standard deviation over networks.\n",
        "| way | s | accuracy, % |\n| --- | --- | --- |",
        *whole(data),
    ]
    artifacts.write_text(root / "docs" / "ensemble.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
