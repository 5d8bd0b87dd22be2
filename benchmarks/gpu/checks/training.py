"""ResNet-18 on CIFAR-10 with the shipped recipe, compiled: accuracy, seconds, share of the ceiling.

First a product of large bfloat16 matrices, the ceiling of the matrix units. Then the original and
a reference for each request are trained, which the checks after this one use. Then a few steps are
timed with other options, and with images from torchvision's DataLoader.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import median

import torch

from benchmarks.gpu import cells
from benchmarks.gpu.lab import (
    BF16,
    RECIPE,
    SHARE_FORGOTTEN,
    TRAINED,
    Lab,
    Record,
    Work,
    attempt,
    computing,
    of_resnet18,
    operations,
    table,
)
from benchmarks.training import dataloader, moved_to
from imu import training
from imu.training.distributed import ALONE

PLACE = 2
SHARE = 0.33
PHOTOGRAPHS = True
ACCURACY, SECONDS = 94.0, 180.0  # goals: of the original in %; of original and one reference
REPEATS = 3
SPEED = ("images/s", "TFLOP/s", "% of the ceiling")


def plan() -> list[Work]:
    images = RECIPE.epochs * TRAINED * (1 + 2 * (1 - SHARE_FORGOTTEN))
    return [
        Work("compiling", 60.0, "assumed"),
        computing("original and two references", of_resnet18(backward=True) * images, BF16),
        Work("a few steps in other ways", 60.0, "assumed: mostly compiling and starting workers"),
    ]


def run(lab: Lab) -> Iterator[Record]:
    yield product(lab)
    recipe = replace(lab.sizes.recipe, compile=lab.device.type == "cuda")
    if recipe.compile:
        record: Record = {"what": "compiling"}
        with attempt(record):
            list(fitting(lab, replace(recipe, epochs=2), 1))
        yield record
        recipe = replace(recipe, compile="failed" not in record)
    image = operations(lab.build(), lab.data.images.shape[1:], backward=True)
    yield {"what": "network", "operations": image, "compiled": recipe.compile}
    for name in cells.NETWORKS:
        record = {"what": "trained", "name": name, "photographs": lab.photographs}
        with attempt(record):
            record |= cells.train(lab, name, recipe)
        yield record
    for name, way in ways(lab, recipe):
        record = {"what": "steps", "name": name}
        with attempt(record):
            record["images_per_second"] = way()
        yield record


def product(lab: Lab) -> Record:
    """FLOP/s of a product of large bfloat16 matrices, the fastest of several."""
    n = lab.sizes.product
    record: Record = {"what": "product", "side": n}
    with attempt(record):
        a, b = (torch.randn(n, n).to(lab.device, torch.bfloat16) for _ in range(2))
        times = [lab.seconds(lambda: [a @ b for _ in range(10)]) for _ in range(REPEATS + 1)]
        record["rate"] = 10 * 2 * n**3 / min(times[1:])
    return record


def fitting(lab: Lab, recipe: training.Config, steps: int) -> Iterator[training.Epoch]:
    """Epochs of so many steps, of a new network."""
    rows = list(range(steps * recipe.batch_size))
    return training.fit(
        lab.build().to(lab.device), lab.data, rows, recipe, seed=0, device=lab.device
    )


def ways(lab: Lab, recipe: training.Config) -> Iterator[tuple[str, Callable[[], float]]]:
    """Name and function, which gives images per second, of every way to train."""
    plain = replace(recipe, compile=False)
    bare = replace(plain, precision="float32", channels_last=False)
    yield "as above", partial(ours, lab, recipe)
    yield "torchvision's DataLoader", partial(loaded, lab, recipe)
    yield "images streamed", partial(ours, lab, replace(recipe, memory_share=0.0))
    if recipe.compile:
        yield "not compiled", partial(ours, lab, plain)
    yield "not compiled, float32, channels first", partial(ours, lab, bare)
    yield "not compiled, new tensors filled", partial(filled, lab, plain)
    yield "algorithms not deterministic", partial(relaxed, lab, recipe)


def ours(lab: Lab, recipe: training.Config) -> float:
    steps = lab.sizes.steps
    epochs = fitting(lab, replace(recipe, epochs=REPEATS + 1), steps)
    next(epochs)
    times = [lab.seconds(partial(next, epochs)) for _ in range(REPEATS)]
    return steps * recipe.batch_size / median(times)


def filled(lab: Lab, recipe: training.Config) -> float:
    """As torch does where algorithms are deterministic, and stages do not."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        return ours(lab, recipe)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = False


def relaxed(lab: Lab, recipe: training.Config) -> float:
    torch.set_deterministic_debug_mode("default")
    try:
        return ours(lab, recipe)
    finally:
        torch.set_deterministic_debug_mode("error")


def loaded(lab: Lab, recipe: training.Config) -> float:
    """The same steps; workers augment image by image, and as many steps warm them up."""
    steps = lab.sizes.steps
    loader = dataloader(lab.data, recipe, lab.sizes.workers, lab.device)
    model = lab.build().to(lab.device).train()
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    optimizer = training.descent(model.parameters(), recipe, 2 * steps)
    with training.prepared(model, recipe, lab.device, ALONE) as forward:
        batches = moved_to(loader, lab.device)

        def some() -> None:
            for images, labels in islice(batches, steps):
                with training.autocast(recipe, lab.device):
                    logits = forward(images.contiguous(memory_format=layout))
                loss = training.cross_entropy(logits, labels, recipe)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        some()
        return steps * recipe.batch_size / lab.seconds(some)


def page(found: list[Record]) -> str:
    about = {record["what"]: record for record in found}
    image = about.get("network", {}).get("operations", 0)
    product = about["product"]
    most = product.get("rate")

    def speed(images_per_second: float) -> list[str]:
        reached = image * images_per_second
        share = f"{100 * reached / most:.1f}" if most else ""
        return [f"{images_per_second:,.0f}", f"{reached / 1e12:,.3g}", share]

    networks, steps = [], []
    for record in found:
        if record["what"] == "trained":
            networks.append(of_network(record, speed))
        if record["what"] == "steps" and "failed" in record:
            steps.append([record["name"], failure(record), "", ""])
        elif record["what"] == "steps":
            steps.append([record["name"], *speed(record["images_per_second"])])
    ceiling = f"{most / 1e12:,.3g} TFLOP/s" if most else failure(product)
    return "\n".join(
        [
            f"A product of two bfloat16 matrices of {product['side']}×{product['side']}, the "
            f"ceiling: {ceiling}. Of an image, forward and backward: {image / 1e9:.3g} GFLOP. "
            f"{of_compiling(about)} Speed is that of the epochs after the first, the median.\n",
            table(("network", "samples", "s", *SPEED, "validation, %", "test, %"), networks),
            goals(found),
            f"Steps in other ways: the median of {REPEATS} times after one to warm up; the "
            "DataLoader's, whose workers augment image by image, are timed once.\n",
            table(("way", *SPEED), steps),
        ]
    )


def of_network(record: Record, speed: Callable[[float], list[str]]) -> list[str]:
    if "failed" in record:
        return [record["name"], failure(record), *[""] * 6]
    epochs = record["epochs"]
    rate = record["images"] / len(epochs) / median(epochs[1:] or epochs)
    return [
        record["name"],
        f"{record['samples']:,}",
        f"{record['seconds']:.1f}",
        *speed(rate),
        f"{record['validation']:.2f}",
        f"{record['test']:.2f}",
    ]


def of_compiling(about: dict[str, Record]) -> str:
    if "compiling" not in about:
        return "Nothing is compiled."
    record = about["compiling"]
    if "failed" in record:
        return f"Compiling {failure(record)}; the rest is not compiled."
    return f"Compiling, with the first steps, took {record['seconds']:.1f} s."


def failure(record: Record) -> str:
    return f"failed: {record['failed']}"


def goals(found: list[Record]) -> str:
    done = {r["name"]: r for r in found if r["what"] == "trained" and "failed" not in r}
    if not {"original", "reference-class"} <= done.keys():
        return "Goals: not decided, a network is missing.\n"
    accuracy = done["original"]["test"]
    seconds = done["original"]["seconds"] + done["reference-class"]["seconds"]
    return (
        f"Goals: {ACCURACY:g} % on test images, reached {accuracy:.2f}; original and one reference "
        f"within {SECONDS:g} s, took {seconds:.1f}, compiling not counted.\n"
    )
