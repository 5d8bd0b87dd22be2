"""Influence in its three forms, against one backward pass per sample.

    make bench                                      writes docs/influence.md
    python -m benchmarks.influence --device cuda    writes docs/influence-cuda.md

Data and weights are random: times do not depend on them. All ways compute the same scores in
float32 in one process, in turn; reported are ratios of neighbouring runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

import torch
import torchvision
from torch import Tensor, nn

from imu.influences import (
    Config,
    ParameterInfluence,
    head_influence,
    influence,
    layer_influence,
    parameter_influence,
)
from imu.models import causal_lm, gpt_small, head, resnet_small
from imu.objectives import Inputs, Objective, Samples, mean_cross_entropy
from imu.objectives.classification import Classification

PAIRS = 7
DAMPING = 0.01
WIDTH, CLASSES = 128, 10
# How many times faster than which of the loops, see ``loop``.
BARS = {
    "cached features": ("loop", 50),
    "small ResNet": ("loop", 8),
    "ResNet-18": ("published loop", 4),
    "small ResNet, last block and head": ("loop", 4),
    "ResNet-18, last block and head": ("published loop", 4),
    "gpt_small, all parameters": ("published loop", 6),
    "gpt_small, attention of the last three blocks": ("published loop", 6),
    "SmolLM2, attention of the last three blocks": ("published loop", 2),
}
SMOLLM2 = Path("own", "smollm2")  # where `python -m tasks fetch` puts it
IMAGES = Classification()


@dataclass(frozen=True)
class Language:
    """The next token at every position."""

    bounds: None = None

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        found: Tensor = model(inputs)
        return found

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return ("head",)


LANGUAGE = Language()


def loop(
    model: nn.Module,
    samples: Samples,
    parameters: Sequence[nn.Parameter],
    *,
    passes: int = 1,
    task: Objective = IMAGES,
) -> Tensor:
    """Scores by one forward and one backward pass per sample: (n,).

    passes: 1 holds the gradients of all samples; 2 computes them again for the scores, as the
    published program does.
    """
    model.eval()
    for _ in range(passes):
        gradients = []
        for i in range(len(samples)):
            sample = samples[i : i + 1]
            loss = task.losses(task.logits(model, sample.inputs), sample.targets).sum()
            gradients.append(torch.autograd.grad(loss, parameters))
    pieces = []
    for own in zip(*gradients, strict=True):
        g = torch.stack(own).flatten(1)  # (n, p)
        pieces.append(-g @ (g.mean(0) / (g.square().mean(0) + DAMPING)))
    return torch.stack(pieces).sum(0)


@dataclass(frozen=True)
class Way:
    """A way to the scores of the first ``samples`` samples; its time is scaled to all."""

    name: str
    samples: int
    scores: Callable[[int], Tensor]


@dataclass(frozen=True)
class Measured:
    seconds: dict[str, list[float]]  # by way, for all samples
    farness: dict[str, float]  # from the loop, by way

    def ratio(self, slow: str, fast: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)]


def seconds(call: Callable[[], object], at_least: float = 0.05) -> float:
    """Of one call; a short one is repeated until the clock's resolution does not matter."""
    count, spent = 0, 0.0
    synchronise()
    begin = perf_counter()
    while spent < at_least:
        call()
        count += 1
        synchronise()
        spent = perf_counter() - begin
    return spent / count


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compared(n: int, ways: Sequence[Way]) -> Measured:
    """Every way in turn, PAIRS times after a warm-up; the first two are the loops."""
    few = ways[0].samples
    right = ways[0].scores(few)
    farness = {
        way.name: float((way.scores(few) - right).abs().max() / right.abs().max()) for way in ways
    }
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(PAIRS):
        for way in ways:
            taken = seconds(partial(way.scores, way.samples))
            times[way.name].append(taken * n / way.samples)
    return Measured(times, farness)


def spread(values: Sequence[float], digits: int = 1) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def duration(values: Sequence[float]) -> str:
    return f"{1000 * mean(values):.4g} ± {1000 * stdev(values):.2g}"


def rows(
    setting: str, n: int, ways: Sequence[Way], bar: tuple[str, float] | None = None
) -> list[str]:
    """Lines of the table; the last of ``ways`` is held against ``bar``."""
    measured = compared(n, ways)
    lines = []
    for way in ways:
        cells = ["" if way in ways[:2] else f"{measured.farness[way.name]:.0e}"]
        for slow in ways[:2]:
            cells.append("" if way in ways[:2] else spread(measured.ratio(slow.name, way.name)))
        if bar is not None and way is ways[-1]:
            reached = mean(measured.ratio(bar[0], way.name)) >= bar[1]
            cells.append(f"{'pass' if reached else 'FAIL'} (≥ {bar[1]}× {bar[0]})")
        else:
            cells.append("")
        scaled = f"{n:,}" if way.samples == n else f"{n:,} from {way.samples:,}"
        time = duration(measured.seconds[way.name])
        lines.append(f"| {setting} | {scaled} | {way.name} | {time} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def loops(
    model: nn.Module,
    samples: Samples,
    parameters: Sequence[nn.Parameter],
    count: int,
    task: Objective = IMAGES,
) -> list[Way]:
    def looped(passes: int) -> Callable[[int], Tensor]:
        return lambda m: loop(model, samples[:m], parameters, passes=passes, task=task)

    return [Way("loop", count, looped(1)), Way("published loop", count, looped(2))]


def cached_features(n: int, device: torch.device) -> list[str]:
    linear = nn.Linear(WIDTH, CLASSES).to(device)
    features = torch.randn(n, WIDTH, device=device)
    labels = torch.randint(0, CLASSES, (n,), device=device)
    samples, logits = Samples(features, labels), linear(features).detach()

    def closed(count: int) -> Tensor:
        return head_influence(features[:count], logits[:count], labels[:count], damping=DAMPING)

    ways = [
        *loops(linear, samples, list(linear.parameters()), min(n, 500)),
        Way("functional form", min(n, 5_000), general(linear, samples, [linear], chunk=512)),
        Way("closed form", n, closed),
    ]
    return rows("cached features", n, ways, BARS["cached features"])


def general(
    model: nn.Module,
    samples: Samples,
    where: Sequence[nn.Module],
    *,
    form: Callable[..., ParameterInfluence] = parameter_influence,
    task: Objective = IMAGES,
    chunk: int = 64,
) -> Callable[[int], Tensor]:
    return lambda count: (
        form(
            model,
            task,
            samples[:count],
            parameters=where,
            damping=DAMPING,
            chunk=chunk,
            cache_prefix=True,
        ).scores
    )


def end_to_end(name: str, model: nn.Module, samples: Samples, looped: int) -> list[str]:
    """From images to scores on the head."""
    n, last = len(samples), head(model)
    ways = [
        *loops(model, samples, list(last.parameters()), looped),
        Way("functional form", min(n, 500), general(model, samples, [last])),
        Way("closed form", n, lambda count: influence(model, IMAGES, samples[:count], Config())),
    ]
    return rows(f"{name}, head", n, ways, BARS[name])


def deeper(
    name: str,
    model: nn.Module,
    where: Sequence[nn.Module],
    samples: Samples,
    looped: int,
    task: Objective = IMAGES,
) -> list[str]:
    n = len(samples)
    parameters = [parameter for module in where for parameter in module.parameters()]
    few = min(n, 4 * looped)
    ways = [
        *loops(model, samples, parameters, looped, task),
        Way("functional form", few, general(model, samples, where, task=task)),
        Way("products", n, general(model, samples, where, form=layer_influence, task=task)),
    ]
    return rows(name, n, ways, BARS.get(name))


def images(n: int, shape: tuple[int, ...], device: torch.device) -> Samples:
    return Samples(
        torch.rand(n, *shape, device=device), torch.randint(0, CLASSES, (n,), device=device)
    )


def sequences(n: int, length: int, vocabulary: int, device: torch.device) -> Samples:
    return Samples(*torch.randint(vocabulary, (2, n, length), device=device))


def attention(model: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    """The modules of these names in the last three blocks."""
    found = [module for name, module in model.named_modules() if name.endswith(names)]
    return found[-3 * len(names) :]


def resnet18() -> nn.Module:
    """With the stem for images of 32 x 32 pixels."""
    model = torchvision.models.resnet18(num_classes=CLASSES)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def growth(device: torch.device) -> list[str]:
    """The closed form while one size doubles, and the exponent that fits best."""
    base = {"n": 20_000, "classes": 64, "features": 256}
    lines = []
    for varied in base:
        sizes = [base[varied] * 2**k // 4 for k in range(5)]
        times = []
        for size in sizes:
            now = base | {varied: size}
            features = torch.randn(now["n"], now["features"], device=device)
            logits = torch.randn(now["n"], now["classes"], device=device)
            labels = torch.randint(0, now["classes"], (now["n"],), device=device)

            def call(
                features: Tensor = features, logits: Tensor = logits, y: Tensor = labels
            ) -> None:
                head_influence(features, logits, y, damping=DAMPING)

            call()
            times.append(min(seconds(call) for _ in range(PAIRS)))
        fixed = ", ".join(f"{name} {value:,}" for name, value in base.items() if name != varied)
        shown = ", ".join(f"{size:,}: {1000 * t:.3g}" for size, t in zip(sizes, times, strict=True))
        lines.append(f"| {varied} | {fixed} | {shown} | {exponent(sizes, times):.2f} |")
        print(lines[-1], flush=True)
    return lines


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Slope of log2 time over log2 size, by least squares."""
    x, y = [math.log2(s) for s in sizes], [math.log2(t) for t in times]
    over = [a - mean(x) for a in x]
    return sum(a * b for a, b in zip(over, y, strict=True)) / sum(a * a for a in over)


def measured_lines(device: torch.device) -> list[str]:
    torch.manual_seed(0)
    small = resnet_small.ResNet(32, 1, CLASSES).to(device).eval()
    large = resnet18().to(device).eval()
    digits = (1, 8, 8)
    lines: list[str] = []
    for n in (500, 5_000, 50_000):
        lines += cached_features(n, device)
    for n in (500, 5_000):
        lines += end_to_end("small ResNet", small, images(n, digits, device), 100)
    lines += end_to_end("ResNet-18", large, images(96, (3, 32, 32), device), 32)
    some, coloured = images(500, digits, device), images(96, (3, 32, 32), device)
    end = [small.blocks[2], small.head]
    lines += deeper("small ResNet, last block and head", small, end, some, 50)
    lines += deeper("small ResNet, all parameters", small, [small], some, 50)
    end = [large.layer4[1], large.fc]
    lines += deeper("ResNet-18, last block and head", large, end, coloured, 8)
    gpt = gpt_small.build(gpt_small.Config(layers=4, hidden=384), 2048).to(device).eval()
    for n in (60, 300):
        texts = sequences(n, 30, 2048, device)
        deeper_of = partial(deeper, samples=texts, looped=15, task=LANGUAGE)
        lines += deeper_of("gpt_small, all parameters", gpt, [gpt])
        where = attention(gpt, ("query_key_value", "out"))
        lines += deeper_of("gpt_small, attention of the last three blocks", gpt, where)
    if SMOLLM2.is_dir():
        config = causal_lm.Config(path=str(SMOLLM2), context=64)
        size = causal_lm.tokens(config, ()).size
        smollm2 = causal_lm.pretrained(config, size).to(device).eval()
        name, where = (
            "SmolLM2, attention of the last three blocks",
            attention(smollm2, ("self_attn",)),
        )
        lines += deeper(name, smollm2, where, sequences(32, 60, size, device), 4, LANGUAGE)
    return lines


def main() -> None:
    # Not before: `benchmarks.gpu` runs without their packages.
    from tasks.files import artifacts
    from tasks.pages import tables
    from tasks.starting import calling

    parser = calling.parser("benchmarks.influence", __doc__)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    # Threads that wait for each other would measure what else the machine is doing.
    torch.set_num_threads(1)
    where = "1 thread"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    lines = [
        "# Influence\n",
        tables.provenance(
            "make bench"
            if device.type == "cpu"
            else f"python -m benchmarks.influence --device {device}"
        ),
        f"float32, {where}, {PAIRS} runs of every way in turn in one process; milliseconds and "
        "ratios are mean ± sample standard deviation. *loop*: one forward and one backward pass "
        "per sample, gradient of the named parameters only, all gradients held. *published loop*: "
        "the same twice, once for the Fisher and once for the scores, as the program published "
        "with arXiv 2508.01620 does. Where a way is measured on fewer samples its time is scaled "
        "linearly: *5,000 from 500*. *farness*: largest difference from the loop's scores over "
        "the largest score. A ratio is of neighbouring runs, how many times faster than a loop. "
        "Random data and weights, one row of "
        f"features has {WIDTH} columns, {CLASSES} classes.\n",
        "End to end no way can be faster than the network's own forward pass, which on ResNet-18 "
        "is nearly all of the closed form's time. Of transformers, with all parameters chosen, the "
        "forward pass, what goes back to inputs, what goes to weights and the products with the "
        "direction of the scores cost about the same each: the published loop runs six of these, "
        "*products* four. What is beyond 1.5× comes from running many samples at once.\n",
        "| setting | samples | way | ms | farness | × loop | × published loop | bar |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *measured_lines(device),
        "\nThe closed form alone, fastest of "
        f"{PAIRS}; exponent: slope of log time over log size by least squares, 1 is linear.\n",
        "| varied | fixed | size: ms | exponent |",
        "| --- | --- | --- | --- |",
        *growth(device),
    ]
    page = "influence.md" if device.type == "cpu" else f"influence-{device.type}.md"
    artifacts.write_text(Path.cwd() / "docs" / page, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
