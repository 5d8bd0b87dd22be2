"""What every stage computes, with every method, on digits: does it run, is it the same twice?

Each part runs twice on the device and once on the CPU, from the same weights, and is compared to
the bit with itself and by its largest difference with the CPU. Parts fail one by one.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.cells import SCENARIOS, SETS, Cell
from benchmarks.gpu.images import drawn
from benchmarks.gpu.lab import CPU, Lab, Record, Work, attempt, table
from imu import discovery, ensemble, influences, methods, metrics, splitting, training
from imu.datasets import LabelledImages, digits
from imu.models import resnet_small
from imu.unseen import Unseen

PLACE = 1
SHARE = 0.11
PHOTOGRAPHS = False
RECIPE = training.Config(epochs=1, batch_size=32, workers=1)
RECIPES = {
    "float32": RECIPE,
    "streamed": replace(RECIPE, memory_share=0.0),
    "bfloat16, channels last": replace(RECIPE, precision="bfloat16", channels_last=True),
}
INFLUENCE = {
    "head": influences.Config(),
    "head, full Fisher": influences.Config(fisher="full"),
    "head, self": influences.Config(score="self"),
    "last block": influences.Config(parameters=("blocks.2", "head")),
    "all parameters": influences.Config(parameters=("",), cache_prefix=False),
}
EPOCHS = 2  # of methods
UNSEEN = Unseen(margin=0.0, labels=(None,) * 10, excess=1.0)  # where methods stop
MARGIN = 2.0  # seconds that a part may take
FARTHEST = 10  # parts that the page shows
Found = dict[str, Tensor]
Part = Callable[[torch.device], Found]


def plan() -> list[Work]:
    return [Work("about 80 parts, twice each and once on the CPU", 45.0, "assumed")]


def run(lab: Lab) -> Iterator[Record]:
    for what, part in parts(lab):
        if lab.left() < MARGIN:
            yield {"what": what, "untried": "there was no time left"}
            continue
        record: Record = {"what": what}
        with attempt(record):
            first, second = part(lab.device), part(lab.device)
            near = first if lab.device == CPU else part(CPU)
            record["same"] = same(first, second)
            record["from_cpu"] = difference(first, near)
        yield record


def same(one: Found, other: Found) -> bool:
    """To the last bit, also where it is no number."""
    return all(
        tensor.numpy().tobytes() == other[name].numpy().tobytes() for name, tensor in one.items()
    )


def difference(one: Found, other: Found) -> float:
    """The largest one over the largest number, of all tensors."""
    most = 0.0
    for name, tensor in one.items():
        right = other[name].double()
        apart = (tensor.double() - right).abs().max() / right.abs().max().clamp(min=1e-12)
        most = max(most, apart.item())
    return most


def parts(lab: Lab) -> Iterator[tuple[str, Part]]:
    """Name, and what is computed on a device: tensors on the CPU, by name."""
    with TemporaryDirectory() as folder:
        digits.write(Path(folder))
        data = digits.load(Path(folder))
    photographs = drawn((2, 1))
    for what, recipe in RECIPES.items():
        yield f"train: {what}", partial(trained, data, recipe)
    for name in discovery.names("imu.models"):
        of_images = not hasattr(discovery.load("imu.models", name), "OBJECTIVE")
        if of_images and name != "custom" and name in (lab.sizes.networks or [name]):
            yield f"network: {name}", partial(network, photographs, name)
    original = network_of(data, CPU)
    list(fit(original, data, RECIPE, CPU))
    for what, config in INFLUENCE.items():
        yield f"influence: {what}", partial(scores, data, original, config)
    yield "ensemble", partial(family, data)
    yield "evaluate", partial(evaluated, data, original)
    for scenario in SCENARIOS:
        for method in methods.names():
            for name, config in methods.variants(method).items():
                if name in (lab.sizes.entries or [name]):
                    part = partial(unlearned, data, original, scenario, method, short(config))
                    yield f"unlearn, {scenario}: {name}", part


def cell(data: LabelledImages, device: torch.device, scenario: str = "class") -> Cell:
    config = splitting.Config(used=0.2, scenario=scenario)  # type: ignore[arg-type]
    return Cell(data, config, device)


def network_of(data: LabelledImages, device: torch.device, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = resnet_small.Config(width=4)
    return resnet_small.build(config, data.images.shape[1:], len(data.classes)).to(device)


def fit(
    model: nn.Module, data: LabelledImages, recipe: training.Config, device: torch.device
) -> Iterator[training.Epoch]:
    rows = cell(data, CPU).rows["train"]
    return training.fit(model, data, rows, recipe, seed=0, device=device)


def stored(model: nn.Module) -> Found:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def trained(data: LabelledImages, recipe: training.Config, device: torch.device) -> Found:
    model = network_of(data, device)
    list(fit(model, data, recipe, device))
    return stored(model)


def network(data: LabelledImages, name: str, device: torch.device) -> Found:
    """Two steps of training from the network's default configuration."""
    module = discovery.load("imu.models", name)
    torch.manual_seed(0)
    model = module.build(module.Config(), data.images.shape[1:], len(data.classes)).to(device)
    recipe = training.Config(epochs=1, batch_size=2)
    list(training.fit(model, data, list(range(4)), recipe, seed=0, device=device))
    return stored(model)


def scores(
    data: LabelledImages, original: nn.Module, config: influences.Config, device: torch.device
) -> Found:
    given = cell(data, device)
    model = deepcopy(original).to(device)
    found = influences.influence(model, given.task, given.samples("forget"), config)
    return {"scores": found.cpu()}


def family(data: LabelledImages, device: torch.device) -> Found:
    """Three networks trained as one stack, and their margins."""
    given, seeds = cell(data, device), (1, 2, 3)
    networks = [network_of(data, device, seed) for seed in seeds]
    rows = given.rows["train"]
    list(ensemble.fit(networks, data, rows, RECIPE, seeds=seeds, device=device))
    return {"margins": ensemble.margins(networks, given.task, given.samples("forget")).cpu()}


def evaluated(data: LabelledImages, original: nn.Module, device: torch.device) -> Found:
    """Every metric and attack of one model, as stages lay it out in memory."""
    given = cell(data, device)
    model = deepcopy(original).to(device).to(memory_format=torch.channels_last)
    samples = {name: given.samples(name) for name in SETS}
    outputs = metrics.outputs_of(model, given.task, samples, forget_classes=given.classes)
    subject = metrics.Subject(
        model=model, objective=given.task, samples=samples, outputs=outputs, original_accuracy=95.0
    )
    values = metrics.measure(subject).values
    return {name: torch.tensor([value]) for name, value in values.items()}


def unlearned(
    data: LabelledImages,
    original: nn.Module,
    scenario: str,
    method: str,
    config: Any,
    device: torch.device,
) -> Found:
    given = cell(data, device, scenario)
    model = deepcopy(original).to(device)
    available = given.given(model, given.samples("forget"), UNSEEN)
    try:
        list(methods.run(method, model, given.task, config, seed=0, available=available))
    except (FloatingPointError, methods.UnlearningError):
        return {"gave up": torch.ones(1)}  # as it may, on a CPU too
    return stored(model)


def short(config: Any) -> Any:
    """The same method for fewer epochs."""
    if hasattr(config, "sgd"):
        return replace(config, sgd=replace(config.sgd, epochs=min(EPOCHS, config.sgd.epochs)))
    return replace(config, epochs=EPOCHS) if hasattr(config, "epochs") else config


def page(found: list[Record]) -> str:
    tried = [record for record in found if "untried" not in record]
    failed = [record for record in tried if "failed" in record]
    ran = [record for record in tried if "failed" not in record]
    other = [record["what"] for record in ran if not record["same"]]
    untried = [record for record in found if "untried" in record]
    farthest = sorted(ran, key=lambda record: -record["from_cpu"])[:FARTHEST]
    lines = [
        f"{len(found)} parts on the handwritten digits: training with each option, two steps of "
        "every network of images, influence, an ensemble, every metric, every method for two "
        f"requests, for {EPOCHS} epochs. Failed: {len(failed)}. Not the same to the bit when "
        f"done twice: {len(other)}{': ' if other else ''}{', '.join(other)}. Not tried for want of "
        f"time: {len(untried)}.\n"
    ]
    if failed:
        rows = [(record["what"], record["failed"]) for record in failed]
        lines.append(table(("part", "failure"), rows))
    rows = [(record["what"], f"{record['from_cpu']:.1e}") for record in farthest]
    lines.append(
        "Farthest from the CPU: the largest difference over the largest number of a tensor. "
        "Training amplifies what is rounded otherwise.\n"
    )
    return "\n".join([*lines, table(("part", "difference"), rows)])
