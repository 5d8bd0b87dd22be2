"""Every method, class-wise and on a random tenth, from one original, with one seed.

Judged against one reference per request, so without the retraining variability that a verdict
needs: the verdict here counts the margins alone. A method is stopped where it takes longer than its
share of the time, and judged as it stands. Attacks that compute on a CPU run in other processes
while the device goes on. Most methods that need the retain set come last: they take longest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult, Pool
from time import perf_counter
from typing import Any, NamedTuple

from torch import nn

from benchmarks.gpu import cells
from benchmarks.gpu.cells import SCENARIOS, SETS, Cell
from benchmarks.gpu.lab import (
    FLOAT32,
    HELD,
    REFERENCE,
    SHARE_FORGOTTEN,
    STEP,
    TESTED,
    TRAINED,
    Lab,
    Record,
    Sizes,
    Work,
    attempt,
    computing,
    judgement,
    of_resnet18,
    of_runs,
)
from imu import discovery, methods, metrics
from imu.objectives import Samples

PLACE = 3
SHARE = 0.45
PHOTOGRAPHS = True
RELEARNED = ("nothing", "logit_mask", "imu", "imu_deep")
FIRST = (*RELEARNED, "imu_published", "gradient_ascent_head", "delete", "amun")
RIVALS = ("eu_k", "msg", "ct", "scrub", "fine_tune", "salun")  # with the retain set at hand
LONG = 3600.0  # seconds
SETTLING = 15.0  # seconds before the end, for the judging of what has run
PASSES = 1000  # of small batches in fine-tune relearning, about
SHOWN = ("FA", "TFA", "RA", "TA", "gap", "MIA", "TV", "KL", "probe_1", "proto_1", "relearn_auc")


class Entry(NamedTuple):
    method: str
    config: Any
    rank: int  # 0: first methods, 1: rivals, 2: others, 3: others that need the retain set


def entries() -> dict[str, Entry]:
    """All methods and variants with their shipped parameters, in order of worth."""
    found = {}
    for method in methods.names():
        retains = "retain" in discovery.load("imu.methods", method).NEEDS
        for name, config in methods.variants(method).items():
            rank = 0 if name in FIRST else 1 if name in RIVALS else 3 if retains else 2
            found[name] = Entry(method, config, rank)
    order = {name: place for place, name in enumerate((*FIRST, *RIVALS))}
    return dict(sorted(found.items(), key=lambda e: (e[1].rank, order.get(e[0], 0))))


def plan() -> list[Work]:
    sizes, all_of_them = Sizes(), entries()
    ranks = [entry.rank for entry in all_of_them.values()]
    first = 2 * sum(rank < 2 for rank in ranks)
    others = 2 * len(ranks) - first
    judged = SHARE_FORGOTTEN * TRAINED + sizes.retained + HELD + TESTED
    image, models = of_resnet18(backward=False), 2 * (len(RELEARNED) + 1)
    passes = models * PASSES
    runs = "assumed: a third of the most that each may take"
    return [
        Work(f"{first} runs of the first methods and rivals", first * sizes.seconds[0] / 3, runs),
        Work(f"{others} runs of others", others * sizes.seconds[1] / 3, runs),
        computing("outputs of all models", (first + others) * judged * image, FLOAT32),
        Work(
            f"relearning from {models}",
            passes * STEP / 3,
            f"{passes:,} passes of {STEP / 3:.3f} s, assumed",
        ),
    ]


def run(lab: Lab) -> Iterator[Record]:
    # Workers are forked here, before the device is in use.
    with get_context("fork").Pool(lab.sizes.workers) as pool:
        yield from judged(lab, pool)


def judged(lab: Lab, pool: Pool) -> Iterator[Record]:
    for name in cells.NETWORKS:  # which the check before this one could not train
        if not cells.trained(lab, name):
            yield {"what": "trained", "name": name, **cells.train(lab, name, lab.sizes.recipe)}
    judges = {scenario: Judge.of(lab, scenario, pool) for scenario in SCENARIOS}
    chosen = {k: v for k, v in entries().items() if k in (lab.sizes.entries or [k])}
    for rank in sorted({entry.rank for entry in chosen.values()}):
        for scenario, judge in judges.items():
            for name, entry in chosen.items():
                if entry.rank == rank:
                    yield from tried(lab, judge, scenario, name, entry)
                    yield from news(judges)
        for scenario, judge in judges.items() if rank == 0 else ():
            for name in (REFERENCE, *RELEARNED)[: lab.sizes.attacked]:
                if name in judge.models and lab.left() > SETTLING:
                    yield judge.relearn(scenario, name)
                    yield from news(judges)
    for judge in judges.values():
        for found in judge.waiting.values():
            found.wait(min(max(0.0, lab.left()), LONG))
    yield from news(judges)


def tried(lab: Lab, judge: "Judge", scenario: str, name: str, entry: Entry) -> Iterator[Record]:
    """One method on one request; its model is left to the judge."""
    record: Record = {"what": "run", "scenario": scenario, "name": name}
    most = min(lab.sizes.seconds[entry.rank > 1], lab.left() - SETTLING)
    if most <= 0:
        yield {**record, "untried": "there was no time left"}
        return
    with attempt(record):
        model, unseen = cells.load(lab, "original")
        given = judge.cell.given(model, judge.samples["forget"], unseen)
        lab.synchronise()
        begin = perf_counter()
        for step in methods.run(
            entry.method, model, judge.cell.task, entry.config, seed=0, available=given
        ):
            lab.synchronise()
            record["seconds"] = perf_counter() - begin
            record |= {"steps": step.step, "forget_accuracy": step.accuracy}
            if record["seconds"] > most:
                record["stopped"] = most
                break
        judge.take(name, model, keep=name in RELEARNED)
    yield record


def news(judges: dict[str, "Judge"]) -> Iterator[Record]:
    for scenario, judge in judges.items():
        for name, record in judge.news():
            yield {"what": "judged", "scenario": scenario, "name": name, **record}


@dataclass
class Judge:
    """One request: its samples on the device, and what is known of each model."""

    cell: Cell
    samples: dict[str, Samples]
    original_accuracy: float  # on the forget set, %
    pool: Pool
    models: dict[str, nn.Module] = field(default_factory=dict)
    outputs: dict[str, metrics.Outputs] = field(default_factory=dict)
    waiting: "dict[str, AsyncResult[dict[str, float]]]" = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)  # how many values

    @classmethod
    def of(cls, lab: Lab, scenario: str, pool: Pool) -> "Judge":
        cell = cells.request(lab, scenario)
        most = {"retain": lab.sizes.retained}
        samples = {name: cell.samples(name, most.get(name)) for name in SETS}
        original, _ = cells.load(lab, "original")
        judge = cls(cell, samples, cell.accuracy(original, "forget"), pool)
        judge.take(REFERENCE, cells.load(lab, f"reference-{scenario}")[0], keep=True)
        return judge

    def take(self, name: str, model: nn.Module, *, keep: bool) -> None:
        """Have a model measured by another process, from its outputs and features."""
        outputs = metrics.outputs_of(
            model, self.cell.task, self.samples, forget_classes=self.cell.classes
        )
        self.waiting[name] = self.pool.apply_async(measured, (outputs,))
        self.outputs[name] = replace(outputs, features={})
        if keep:
            self.models[name] = model

    def relearn(self, scenario: str, name: str) -> Record:
        """The attacks that train the network."""
        record: Record = {"what": "relearned", "scenario": scenario, "name": name}
        subject = metrics.Subject(
            model=self.models[name],
            objective=self.cell.task,
            samples=self.samples,
            outputs=self.outputs[name],
            original_accuracy=self.original_accuracy,
        )
        with attempt(record):
            found = self.values.setdefault(name, {})
            for module in attacks():
                found |= module.attack(subject)
        return record

    def news(self) -> Iterator[tuple[str, Record]]:
        """Name and judgement of each model of which more is known than was told."""
        for name in [name for name, found in self.waiting.items() if found.ready()]:
            record: Record = {}
            with attempt(record):
                self.values.setdefault(name, {}).update(self.waiting.pop(name).get())
            if "failed" in record:
                yield name, record
        for name, values in self.values.items():
            ready = not {name, REFERENCE} & self.waiting.keys() and REFERENCE in self.values
            if ready and self.told.get(name) != len(values):
                self.told[name] = len(values)
                yield name, self.judgement(name)

    def judgement(self, name: str) -> Record:
        record: Record = {}
        with attempt(record):
            model, reference = (
                metrics.Measured(outputs=self.outputs[each], values=self.values[each])
                for each in (name, REFERENCE)
            )
            labels = {part: of_set.tolist() for part, of_set in model.outputs.labels.items()}
            record |= judgement(model, reference, labels, self.cell.classes)
        return record


def measured(outputs: metrics.Outputs) -> dict[str, float]:
    """All that one model's outputs and features give."""
    return dict(metrics.of_outputs(outputs).values)


def attacks() -> list[Any]:
    """The metrics that train the network."""
    return [module for module in metrics.modules() if hasattr(module, "attack")]


def page(found: list[Record]) -> str:
    """A table per request, in the order in which the methods ran."""
    runs = [record for record in found if record["what"] == "run"]
    trained = [
        f"{record['name']} ({record['test']:.2f} % right of the test images)"
        for record in found
        if record["what"] == "trained"
    ]
    parts = [f"Trained here, not compiled: {', '.join(trained)}.\n"] if trained else []
    for scenario in SCENARIOS:
        judgements = {
            record["name"]: record
            for record in found
            if record["what"] == "judged" and record["scenario"] == scenario
        }
        of_scenario = [record for record in runs if record["scenario"] == scenario]
        what = "A class" if scenario == "class" else "A random tenth"
        parts.append(f"### {what}\n\n{of_runs(of_scenario, judgements, SHOWN)}")
    return (
        "FA, RA and the like as in the README, RA on some retained samples; *relearn_auc* not "
        "for every method. *margins*: the verdict if retrained models "
        "did not differ at all, for there is one reference and no other retraining; which tests "
        "decided.\n\n" + "\n".join(parts)
    )
