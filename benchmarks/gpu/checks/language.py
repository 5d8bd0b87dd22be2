"""A language model that forgets: every method, one seed.

SmolLM2-135M-Instruct is fine-tuned on questions about 180 of 200 authors of TOFU, of whom it
forgets a tenth, and on those that stay for the one reference, so without the retraining variability
that a verdict needs: the verdict here counts the margins alone. Where no archive is given, a small
network of its own learns about people who do not exist, as settings/biographies.yaml has them.
Methods have the parameters that were found there, on a network of a hundredth of the size. Each is
judged before the next one begins.
"""

import copy
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from benchmarks.gpu.lab import (
    REFERENCE,
    STEP,
    Lab,
    Record,
    Work,
    ascent_weights,
    attempt,
    computing,
    judgement,
    of_runs,
)
from benchmarks.influence import loop
from imu import discovery, influences, methods, metrics, selecting, splitting, training
from imu.datasets import Source, biographies, tofu
from imu.datasets.common.texts import Texts
from imu.methods import ForgetSet
from imu.methods.common.descent import Sgd
from imu.methods.imu_published import published
from imu.metrics import Measured, Said, Subject, drawn, said_of
from imu.models import causal_lm, gpt_small
from imu.models.common.tokens import Tokens
from imu.objectives import Samples, answered
from imu.objectives import language as kind
from imu.unseen import unseen_by

PLACE = 5
SHARE = 0.5
PHOTOGRAPHS = False
SETTLING = 20.0  # seconds before the end, in which nothing more is begun
WEIGHTS, QUESTIONS = "smollm2", "tofu"  # folders in the archive
SHOWN = (
    *("P_forget", "ROUGE_forget", "P_reworded", "choice", "P_retain", "ROUGE_retain"),
    *("repetition", "AUC_loss", "relearn_P", "P_4bit", "KS"),
)
PARAMETERS, TAUGHT, JUDGED = 163e6, 3_600, 300_000  # of the network; questions; tokens of a model
BFLOAT16 = 60e12  # operations in a second that are assumed of its small products
TRAINED = 0.3  # seconds of a step, bound by its launches


def ascent(learning_rate: float) -> Sgd:
    return Sgd(learning_rate=learning_rate, epochs=12, batch_size=32)


class Entry(NamedTuple):
    method: str
    config: Mapping[str, Any]


WORDS = {"sgd": Sgd(learning_rate=3.0, epochs=8, batch_size=32)}
KEEPING = {"keeping": "kl", "weight": 10.0}
# settings/biographies.yaml, which needs a parser that a bare machine lacks; a test compares them.
# In order of worth; what needs the retain set, or influence on all weights, comes last.
ENTRIES = {
    "nothing": Entry("nothing", {}),
    "token_mask": Entry("token_mask", {}),
    "imu_words": Entry("imu_words", WORDS),
    "imu_published": Entry(
        "imu_published",
        {
            "per_batch": True,
            "sgd": Sgd(
                learning_rate=0.01,
                epochs=5,
                batch_size=32,
                weight_decay=5e-4,
                stop_at_target=False,
            ),
        },
    ),
    "imu_deep": Entry(
        "imu_deep",
        {"blocks": 1, "reach": 2.0, "temperature": 0.5, "output": 0.15, "depth": 0.0},
    ),
    "gradient_ascent_all": Entry("gradient_ascent", {"parameters": "all", "sgd": ascent(0.001)}),
    "npo": Entry("npo", {"beta": 0.5, "sgd": ascent(0.002)}),
    "simnpo": Entry("simnpo", {"beta": 1.0, "gamma": 0.0, "sgd": ascent(0.002)}),
    "delete": Entry("delete", {"sgd": ascent(0.01)}),
    "undial": Entry("undial", {"sgd": ascent(0.005)}),
    "ce_u": Entry(
        "gradient_ascent", {"parameters": "all", "loss": "unlikelihood", "sgd": ascent(0.001)}
    ),
    "idk_dpo": Entry("idk_dpo", {"sgd": ascent(0.0003)}),
    "satimp": Entry(
        "weighted_gradient_ascent", {"beta": 1.0, "importance": 0.5, "sgd": ascent(0.005)}
    ),
    "npo_retain": Entry(
        "gradient_difference",
        KEEPING | {"weight": 3.0, "ascent": "npo", "beta": 0.5, "sgd": ascent(0.03)},
    ),
    "grad_diff": Entry("gradient_difference", KEEPING | {"sgd": ascent(0.01)}),
    "rmu": Entry("rmu", {"weight": 10.0, "sgd": ascent(0.03)}),
    "refuse": Entry("refuse", {}),
    "imu_words_permuted": Entry("imu_words", WORDS | {"influence": "permuted"}),
    "imu_words_uniform": Entry("imu_words", WORDS | {"influence": "uniform"}),
    "imu_words_loss": Entry("imu_words", WORDS | {"influence": "loss"}),
}


def configured(name: str) -> Any:
    entry = ENTRIES[name]
    return discovery.load("imu.methods", entry.method).Config(**entry.config)


RECIPE = training.Config(
    epochs=5,
    batch_size=64,
    learning_rate=3e-4,
    optimizer="adamw",
    weight_decay=0.0,
    clip=1.0,
    warmup=0.1,
    precision="bfloat16",
)
NETWORK = gpt_small.Config(context=64)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """people, network: where there is no archive. context: tokens of the longest row."""

    recipe: training.Config = RECIPE
    context: int = 160
    people: int = 60
    network: gpt_small.Config = NETWORK
    entries: tuple[str, ...] = tuple(ENTRIES)
    scored: tuple[int, int] = (128, 16)  # samples whose influence is timed, and those of the loop


TINY = Sizes(
    recipe=training.Config(epochs=2, batch_size=16, learning_rate=0.01, optimizer="adamw"),
    people=12,
    network=gpt_small.Config(width=16, layers=2, heads=2, hidden=16, vocabulary=400),
    entries=("nothing", "token_mask", "imu_published"),
    scored=(4, 2),
)


def plan() -> list[Work]:
    sizes, models = Sizes(), len(ENTRIES) + 1
    recipe = sizes.recipe
    steps = 2 * recipe.epochs * (TAUGHT // recipe.batch_size)
    return [
        Work("original and reference", steps * TRAINED, f"{steps} steps of {TRAINED} s, assumed"),
        Work(f"{len(ENTRIES)} methods", 15.0 * len(ENTRIES), "assumed"),
        computing(f"{models} models judged", models * JUDGED * 2 * PARAMETERS, BFLOAT16 / 3),
        Work(
            "greedy answers and relearning",
            models * 300 * STEP * 3,
            f"{300 * models:,} passes of {STEP * 3:.3f} s, assumed",
        ),
    ]


def run(lab: Lab) -> Iterator[Record]:
    sizes = TINY if lab.sizes.network != "resnet18" else Sizes()
    begin = perf_counter()
    cell = Cell.of(lab, sizes)
    yield {
        "what": "texts",
        "source": "TOFU and SmolLM2" if lab.language else "biographies and gpt_small",
        "samples": {name: len(rows) for name, rows in cell.rows.items()},
        "parameters": sum(p.numel() for p in cell.begun().parameters()),
        "seconds": perf_counter() - begin,
    }
    models = {}
    for name, part in (("original", "train"), (REFERENCE, "retain")):
        model = cell.begun().to(lab.device)
        begin = perf_counter()
        for epoch in training.fit(
            model,
            cell.data,
            cell.rows[part],
            sizes.recipe,
            seed=0,
            device=lab.device,
            about=cell.about,
        ):
            if lab.left() < SETTLING:
                raise TimeoutError(f"{name}: no time after epoch {epoch.epoch}")
        lab.synchronise()
        models[name] = model.eval()
        right = {each: cell.right(model, each) for each in ("forget", "retain", "validation")}
        seconds = perf_counter() - begin
        yield {"what": "trained", "name": name, "seconds": seconds, "right": right, **memory(lab)}
    yield timed(lab, cell, sizes, models["original"])
    judge = Judge(cell, sizes)
    yield judge.judged(REFERENCE, models.pop(REFERENCE))
    for name in sizes.entries:
        if lab.left() < SETTLING:
            yield {"what": "run", "name": name, "untried": "there was no time left"}
            continue
        model = copy.deepcopy(models["original"])
        yield tried(lab, cell, name, model)
        yield judge.judged(name, model)


def memory(lab: Lab) -> Record:
    """The most that tensors took since it was asked last, in bytes."""
    if lab.device.type != "cuda":
        return {}
    most = torch.cuda.max_memory_allocated(lab.device)
    torch.cuda.reset_peak_memory_stats(lab.device)
    return {"memory": most}


def tried(lab: Lab, cell: "Cell", name: str, model: nn.Module) -> Record:
    """One method; ``model`` is changed."""
    record: Record = {"what": "run", "name": name}
    with attempt(record):
        given = cell.given(model)
        begin = perf_counter()
        steps = methods.run(
            ENTRIES[name].method, model, cell.task, configured(name), seed=0, available=given
        )
        for step in steps:
            lab.synchronise()
            record["seconds"] = perf_counter() - begin
            record |= {"steps": step.step, "forget_accuracy": step.accuracy}
            if lab.left() < SETTLING:
                record["stopped"] = record["seconds"]
                break
    return record | memory(lab)


def timed(lab: Lab, cell: "Cell", sizes: Sizes, model: nn.Module) -> Record:
    """Influence on the attention of the last three blocks, and by the published loop."""
    record: Record = {"what": "influence"}
    many, few = sizes.scored
    with attempt(record):
        samples = cell.samples("train", many)
        layers = published(model, cell.task, samples[:1])
        config = influences.Config(parameters=layers, chunk=16)
        own = [p for layer in layers for p in model.get_submodule(layer).parameters()]
        score = partial(influences.influence, model, cell.task, samples, config)
        looped = partial(loop, model, samples[:few], own, passes=2, task=cell.task)
        lab.seconds(score)  # what is made once
        record["hooked"] = lab.seconds(score) / many
        record["looped"] = lab.seconds(looped) / few
    return record | memory(lab)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The texts, how they are divided, and where training begins."""

    data: Texts
    rows: Mapping[str, list[int]]
    about: Mapping[str, Any]
    begun: Callable[[], nn.Module]
    device: torch.device

    @classmethod
    def of(cls, lab: Lab, sizes: Sizes) -> "Cell":
        config: Any = sizes.network
        folder = lab.scratch / "language"
        if lab.language:
            unpack(lab.language, folder)
            data = tofu.read(folder / QUESTIONS)
            split = splitting.Config(
                dataset="tofu",
                validation=0.05,
                test=0.05,
                scenario="group",
                by_group=splitting.GroupRequest(attribute="forget10", values=("yes",)),
            )
            config = causal_lm.Config(path=f"{causal_lm.OWN}/{WEIGHTS}", context=sizes.context)
        else:
            biographies.write(folder, Source(people=sizes.people))
            data = biographies.load(folder)
            split = splitting.Config(
                dataset="biographies",
                validation=0.2,
                test=0.2,
                scenario="fraction",
                by_fraction=splitting.FractionRequest(fraction=0.34, stratified=False),
            )
        weights = folder / WEIGHTS
        texts = map(str, (*data.prompts, *data.answers))
        tokens = causal_lm.read_tokens(weights) if lab.language else gpt_small.tokens(config, texts)

        def begun() -> nn.Module:
            torch.manual_seed(0)
            if lab.language:
                return causal_lm.pretrained(config, tokens.size, weights)
            return gpt_small.build(config, tokens.size)

        about = {"tokens": tokens.to_json(), "config": {"context": config.context}}
        rows = divided(data, split)
        return cls(data=data, rows=rows, about=about, begun=begun, device=lab.device)

    @property
    def task(self) -> kind.Language:
        return kind.objective(self.about)

    def samples(self, name: str, most: int | None = None) -> Samples:
        return kind.samples(self.data, self.rows[name][:most], self.about, self.device)

    def right(self, model: nn.Module, name: str) -> float:
        """Share of the tokens of the answers that are the most probable ones, in %."""
        return 100 * answered(model, self.task, self.samples(name)).right.mean().item()

    def given(self, model: nn.Module) -> dict[str, Callable[[], Any]]:
        """What methods may need of the original, by the same rules as in stages."""

        trained, held, samples = map(self.samples, ("train", "validation", "forget"))
        kept = unseen_by(model, self.task, [trained], held)
        forget = ForgetSet.as_unseen(samples, kept)
        config = influences.Config(chunk=16)

        return {
            "forget": lambda: forget,
            "influence": lambda: ascent_weights(model, self.task, samples, config),
            "retain": lambda: self.samples("retain"),
        }


def unpack(parts: Sequence[Path], folder: Path) -> None:
    """The archive that ``parts``, files or a folder of them, make up in order of their names."""
    files = [file for part in parts for file in (part.iterdir() if part.is_dir() else [part])]
    folder.mkdir(parents=True)
    whole = folder / "archive"
    with whole.open("wb") as joined:
        for file in sorted(files, key=lambda file: file.name):
            with file.open("rb") as part:
                shutil.copyfileobj(part, joined)
    with tarfile.open(whole) as archive:
        # The filter came with Python 3.11.4.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **safe)  # type: ignore[arg-type]
    whole.unlink()


def divided(data: Texts, config: splitting.Config) -> dict[str, list[int]]:
    listed = {"id": data.ids, "index": range(len(data.ids)), "label": data.labels}
    subjects = data.attributes[data.together]
    samples = pd.DataFrame(listed | {"sha256": data.ids, data.together: subjects})
    sets = splitting.split(samples, config, data.classes, together=data.together)
    chosen = selecting.select(
        samples, sets, config, data.classes, attributes=data.attributes, together=data.together
    )
    return {name: rows["index"].tolist() for name, rows in chosen.sets.items()}


@dataclass
class Judge:
    """What is known of the reference, and of each model after it."""

    cell: Cell
    sizes: Sizes
    reference: dict[str, Measured] = field(default_factory=dict)

    def judged(self, name: str, model: nn.Module) -> Record:
        record: Record = {"what": "judged", "name": name}
        with attempt(record):
            model_measured = self.measured(model)
            reference = self.reference.setdefault(REFERENCE, model_measured)
            counts = {
                each: [0] * len(answers) for each, answers in model_measured.outputs.answers.items()
            }
            record |= judgement(model_measured, reference, counts, ())
        return record

    def measured(self, model: nn.Module) -> Measured:
        cell = self.cell
        asked = {name: cell.rows[name] for name in ("forget", "retain", "validation", "test")}
        rows = drawn(asked, seed=0)
        tokens = Tokens.from_json(cell.about["tokens"])
        context = cell.about["config"]["context"]
        said: Said = said_of(model, cell.task, tokens, cell.data, rows, longest=context)
        subject = Subject(
            model=model,
            objective=cell.task,
            samples={
                name: kind.samples(cell.data, chosen, cell.about, cell.device)
                for name, chosen in rows.items()
            },
            outputs=said,
        )
        return metrics.measure(subject)


def page(found: list[Record]) -> str:
    """What was trained, and a table of the methods in the order in which they ran."""
    by_kind: dict[str, list[Record]] = {}
    for record in found:
        by_kind.setdefault(record["what"], []).append(record)
    parts = []
    for record in by_kind.get("texts", []):
        counts = ", ".join(f"{name} {count:,}" for name, count in record["samples"].items())
        parts.append(f"{record['source']}, {record['parameters']:,} parameters. Samples: {counts}.")
    for record in by_kind.get("trained", []):
        right = ", ".join(f"{name} {share:.1f} %" for name, share in record["right"].items())
        parts.append(
            f"The {record['name']} was trained in {record['seconds']:.1f} s{most(record)}; tokens "
            f"of answers that it gets right: {right}."
        )
    for record in by_kind.get("influence", []):
        said = record.get("failed", "")
        if not said:
            ratio = record["looped"] / record["hooked"]
            said = (
                f"{1000 * record['hooked']:.2f} ms a sample, by the published loop "
                f"{1000 * record['looped']:.2f} ms, {ratio:.1f} times as long{most(record)}"
            )
        parts.append(f"Influence on the attention of the last three blocks: {said}.")
    judgements = {record["name"]: record for record in by_kind.get("judged", [])}
    return (
        "".join(f"- {part}\n" for part in parts)
        + "\n"
        + of_runs(by_kind.get("run", []), judgements, SHOWN)
        + "\nNames as in the report; *margins*: the verdict if retrained models did not differ at "
        "all, and which tests decided.\n"
    )


def most(record: Record) -> str:
    return f", with {record['memory'] / 2**30:.1f} GiB" if "memory" in record else ""
