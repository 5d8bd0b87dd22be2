"""Influence on the head, the last block and all parameters, against the published loop.

The loop runs forward and backward twice per sample; it is timed on some of the samples, and its
time is scaled to all. Memory is the most that tensors took, the network and the images included.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gpu import cells
from benchmarks.gpu.lab import (
    FLOAT32,
    STEP,
    Lab,
    Record,
    Sizes,
    Work,
    attempt,
    computing,
    of_resnet18,
    table,
)
from benchmarks.influence import loop
from imu.influences import Config, influence
from imu.methods.common.block import last_block
from imu.models import head_name
from imu.objectives import Samples

PLACE = 4
SHARE = 0.11
PHOTOGRAPHS = True
REPEATS = 2
LOOP = "published loop"


def plan() -> list[Work]:
    sizes = Sizes()
    forward, both = of_resnet18(backward=False), of_resnet18(backward=True)
    n, looped = sizes.scored * (REPEATS + 1), 3 * 2 * sizes.looped * (REPEATS + 1)
    return [
        computing(f"{sizes.scored:,} samples, head", n * forward, FLOAT32),
        computing("the same, all parameters and last block", 2 * n * (both + 2 * forward), FLOAT32),
        Work(
            f"the loop, {sizes.looped} samples",
            looped * STEP,
            f"{looped:,} steps of {STEP} s, assumed",
        ),
    ]


def run(lab: Lab) -> Iterator[Record]:
    cell = cells.request(lab, "fraction")
    trained = cells.trained(lab, "original")
    model = cells.load(lab, "original")[0] if trained else lab.build().to(lab.device)
    samples = cell.samples("train", lab.sizes.scored)
    assert isinstance(samples.inputs, Tensor)
    samples = Samples(samples.inputs.float() / cell.data.scale, samples.targets)
    yield {"what": "samples", "n": len(samples), "trained": trained}
    few = samples[: lab.sizes.looped]
    for what, names in choices(model).items():
        parameters = [p for name in names for p in model.get_submodule(name).parameters()]
        config = Config(parameters=names)

        def ours(given: Samples, config: Config = config) -> Tensor:
            return influence(model, cell.task, given, config)

        def looped(parameters: list[nn.Parameter] = parameters) -> Tensor:
            return loop(model, few, parameters, passes=2, task=cell.task)

        about = {"what": what, "parameters": sum(p.numel() for p in parameters)}
        record: Record = {**about, "way": "imu"}
        with attempt(record):
            record |= timed(lab, partial(ours, samples), len(samples))
        yield record
        record = {**about, "way": LOOP}
        with attempt(record):
            record |= timed(lab, looped, len(few))
            right = looped()
            record["difference"] = ((ours(few) - right).abs().max() / right.abs().max()).item()
        yield record


def choices(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """What carries influence: names of modules."""
    last = head_name(model)
    return {
        "head": (last,),
        "last block and head": (*last_block(model), last),
        "all parameters": ("",),
    }


def timed(lab: Lab, call: Callable[[], Tensor], n: int) -> Record:
    """Seconds for ``n`` samples, the least of a few, and the most memory, MB."""
    call()
    if lab.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found: Record = {"n": n, "seconds": min(lab.seconds(call) for _ in range(REPEATS))}
    if lab.device.type == "cuda":
        found["memory"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def page(found: list[Record]) -> str:
    about = found[0]
    loops = {
        record["what"]: record["seconds"] / record["n"]
        for record in found
        if record.get("way") == LOOP and "failed" not in record
    }
    rows = []
    for record in found[1:]:
        cells_of_row = [record["what"], f"{record['parameters']:,}", record["way"]]
        if "failed" in record:
            rows.append([*cells_of_row, "", "", "", "", f"failed: {record['failed']}"])
            continue
        whole = about["n"] * record["seconds"] / record["n"]
        memory = f"{record['memory']:,.0f}" if "memory" in record else ""
        known = loops.get(record["what"])
        faster = f"{about['n'] * known / whole:,.1f}" if known else ""
        apart = f"{record['difference']:.0e}" if "difference" in record else ""
        rows.append([*cells_of_row, f"{record['n']:,}", f"{whole:.3g}", memory, faster, apart])
    return (
        f"{about['n']:,} samples, float32, weights {'trained' if about['trained'] else 'random'}. "
        "*published loop*: forward and backward twice for each sample, as in the program published "
        "with arXiv 2508.01620; timed on fewer samples and scaled. *difference*: the largest one "
        "between the two, over the largest score. Memory: the most that tensors took, on as many "
        "samples as were timed.\n\n"
        + table(
            (
                "influence on",
                "parameters",
                "way",
                "samples timed",
                "s for all",
                "memory, MB",
                "× loop",
                "difference",
            ),
            rows,
        )
    )
