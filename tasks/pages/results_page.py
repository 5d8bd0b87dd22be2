"""The page of results in ``docs/``: spreads over seeds, verdicts and paired comparisons."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from imu import statistics, verdicts
from imu.verdicts import PASSED
from tasks.files import artifacts, params
from tasks.files.workspace import BASELINES
from tasks.pages import figures, findings, lineup, results
from tasks.pages.results import RETRAINED, Scenario
from tasks.pages.tables import markdown, provenance

Table = list[statistics.Comparison]


def page(
    table: pd.DataFrame,
    command: str,
    name: str,
    settings: Mapping[str, Any] | None = None,
    tuned: Path | None = None,
) -> str:
    """All of it, made of ``results.collected``'s table alone.

    name: of the data or settings. settings: parameters that differ from ``params.yaml``. tuned: the
    table of candidates of which each scenario took its best.
    """
    sections: list[str] = []
    compared: list[Table] = []
    names: set[str] = set()
    most = 0
    for scenario in results.scenarios(table):
        names |= scenario.values.keys()
        most = max(most, scenario.seeds)
        first = [name for name in findings.HEADLINE if name in scenario.values]
        sections.append(f"## {scenario.title} ({_count(scenario.seeds, 'seed')})\n")
        sections += power(scenario)
        sections.append(markdown(_headline(scenario, first)))
        for yardstick in (scenario.trivial, RETRAINED):
            if yardstick in scenario.models:
                text, made = _differences(scenario, yardstick)
                sections.append(text)
                compared.append(made)
        for group, title in findings.GROUPS.items():
            columns = [c.name for c in _columns(scenario.values) if c.group == group]
            if rest := [name for name in columns if name not in first]:
                sections += [f"### {title}\n", markdown(_named(_summary(scenario, rest)))]
    return "\n".join(
        [
            _introduction(table, command, name, settings or {}, tuned),
            _errors(compared, most),
            *sections,
            _glossary(names),
        ]
    )


def picture(table: pd.DataFrame, methods: Collection[str]) -> bytes:
    """The first forget set: mean distance of each of ``methods`` over the seeds, as PNG."""
    scenario = next(results.scenarios(table))
    baselines = [model for model in BASELINES if model in scenario.models]
    shown = baselines + [model for model in scenario.methods if model in methods]
    drawn = []
    for column in findings.explained(list(scenario.distances)):
        means = scenario.distances[column.name].mean(skipna=False)
        drawn.append(
            figures.Distance(
                metric=column.name,
                unit=column.apart,
                of_models={model: float(means[model]) for model in shown},
                of_variability=float(means[RETRAINED]) if RETRAINED in means else None,
            )
        )
    return figures.distances(drawn, baselines)


def power(scenario: Scenario) -> list[str]:
    """In how many seeds the tests let pass what did not forget: then they show no forgetting."""
    verdicts = scenario.rows.set_index("model")["verdict"]
    passed = {"The original model": verdicts[verdicts.index == "nothing"] != "not forgotten"}
    if scenario.class_wise:
        masked = verdicts[verdicts.index == "logit_mask"]
        passed["A mask on the logit"] = masked.isin(PASSED)
    lines = [
        f"**{what} passes as one that forgot in {seeds.sum()} of {_count(len(seeds), 'seed')}: "
        "there a verdict is no evidence of forgetting.**\n"
        for what, seeds in passed.items()
        if seeds.any()
    ]
    others = verdicts[verdicts.index == RETRAINED].dropna()
    if failed := int((~others.isin(PASSED)).sum()):
        lines.append(
            f"**Retraining with another seed fails in {failed} of {_count(len(others), 'model')}: "
            "about so often is a failed test an error here.**\n"
        )
    return lines


def _headline(scenario: Scenario, names: list[str]) -> pd.DataFrame:
    groups = scenario.rows.groupby("model")
    table = _summary(scenario, names)
    table.insert(0, "verdicts", {model: counted(found) for model, found in groups["verdict"]})
    table.insert(0, "data access", groups["data_access"].first())
    return _named(table)


def counted(outcomes: pd.Series) -> str:
    """Such as "masked only 2/3, utility lost 1/3"; "–" for the reference, which is not judged."""
    found = Counter(outcomes.dropna())
    if not found:
        return "–"
    known = (findings.FAILED, findings.UNCHANGED, *verdicts.OUTCOMES)
    return ", ".join(f"{o} {found[o]}/{len(outcomes)}" for o in known if found[o])


def _summary(scenario: Scenario, names: list[str]) -> pd.DataFrame:
    """Mean ± sample standard deviation; attacks on features also minus the reference."""
    cells = pd.DataFrame(index=scenario.models, columns=names, dtype=object)
    for column in _columns(names):
        by_seed = scenario.values[column.name]
        for model in scenario.models:
            text = spread(scenario, column.name, model)
            if column.group == "features" and column.short == "reference":
                minus = by_seed[model] - by_seed[lineup.REFERENCE]
                if model != lineup.REFERENCE and minus.notna().all():
                    text += f" ({_signed(column.name, minus.mean())})"
            cells.loc[model, column.name] = text
    return cells


def spread(scenario: Scenario, name: str, model: str) -> str:
    """Such as "1.25 ± 0.50"; "–" where the metric does not exist for the model."""
    values = scenario.values[name][model]
    # Many networks tell of the method, whether or not it left this model.
    known = values[values.notna() | scenario.left_a_model(model)]
    if name in findings.COSTS and values.notna().any():
        known = values.dropna()  # nothing to divide by in a seed without an update; told below
    if known.empty:
        return "–"
    try:
        found = statistics.estimate(known.to_numpy())
    except ValueError as error:
        raise artifacts.ArtifactError(f"{name} of {model}: {error}") from error
    if found is None:
        return "–"
    text = findings.shown(name, found.mean)
    if found.std is not None:
        text += f" ± {findings.shown(name, found.std)}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)} seeds)"


def _differences(scenario: Scenario, yardstick: str) -> tuple[str, Table]:
    """Every method against ``yardstick``: a row per model, a column per distance."""
    models = scenario.methods
    if yardstick == RETRAINED and scenario.trivial in scenario.models:
        models = [scenario.trivial, *models]
    made: Table = []
    cells = pd.DataFrame("–", index=models, columns=list(scenario.distances), dtype=object)
    for name, by_seed in scenario.distances.items():
        for model in models:
            if not (left := scenario.left_a_model(model)).all():
                cells.loc[model, name] = f"failed in {(~left).sum()} of {_count(len(left), 'seed')}"
                continue
            try:
                found = statistics.compare(by_seed[model].to_numpy(), by_seed[yardstick].to_numpy())
            except ValueError as error:
                raise artifacts.ArtifactError(f"{name} of {model}: {error}") from error
            if found is not None:
                made.append(found)
                cells.loc[model, name] = said(name, found)
    what = "Mean of the paired differences and its 95 % interval, "
    text = (
        f"### Distance to the reference: model − {yardstick}\n\n"
        f"{what if scenario.seeds > 1 else ''}{_count(scenario.seeds, 'seed')}. {_tally(made)}\n\n"
        f"{markdown(_named(cells))}"
    )
    return text, made


def said(name: str, found: statistics.Comparison) -> str:
    """A difference of distances, such as "−0.53 [−0.90, −0.16] **better**"."""
    mean, interval = _signed(name, found.difference.mean), found.difference.interval
    if found.outcome == "equal":
        return "equal"
    if interval is None:
        return f"{mean} undecided"
    if found.constant:
        return f"{mean} in every seed, undecided"
    low, high = (_signed(name, limit) for limit in interval)
    outcome = "undecided" if found.outcome == "undecided" else f"**{found.outcome}**"
    return f"{mean} [{low}, {high}] {outcome}"


def _signed(name: str, value: float) -> str:
    text = findings.shown(name, abs(value))
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def _tally(made: Table) -> str:
    found = Counter(comparison.outcome for comparison in made)
    said = ", ".join(f"{found[o]} {o}" for o in ("better", "worse", "equal", "undecided"))
    return f"{_count(len(made), 'comparison')}: {said}."


def _introduction(
    table: pd.DataFrame,
    command: str,
    name: str,
    settings: Mapping[str, Any],
    tuned: Path | None,
) -> str:
    others = table.loc[table["kind"] == "retrained", "model"].nunique()
    seeds = ", ".join(map(str, sorted(table["seed"].unique())))
    return "\n".join(
        [
            f"# Results on {name}\n",
            provenance(command),
            *_differing(settings),
            *_searched(tuned),
            f"Mean ± sample standard deviation over training seeds {seeds}. *reference*: retrained "
            "without the forget set. *retrained*: the same with other seeds, "
            f"{_count(others, 'model')} per training seed; the mean of their values is one value "
            "of that seed, and so is the mean of their distances to the reference. *nothing*: the "
            "original model. *logit_mask*: the logit of the forgotten class set to −∞. *data "
            "access*: what a method is given besides the original model, the forget set alone or "
            "the retain set as well. *verdict*: outcomes of the tests in `imu/verdicts.py`, and in "
            "how many seeds each; of *retrained*, in how many models. *failed*: it diverged or "
            "gave up, and there is no model to measure. In brackets behind an attack on "
            "features: minus the reference, mean over seeds. “–”: does not exist for the model. "
            "[Columns](#columns) has units, aims and meanings.\n",
            _networks(table),
            "The spread is over training seeds alone; split and forget set are the same. Original "
            "and reference share their seed. A mask on one logit passes metrics of outputs: they "
            "are no evidence that the features forgot.\n",
            "Models are compared by their distance to the reference, |model − reference|, and by "
            "the value of what is a distance already. The difference of two models' distances is "
            "taken seed by seed; its mean has the 95 % interval of Student's t. Below 0 is nearer "
            "to the reference. **better** or **worse**: the interval excludes 0. equal: the same "
            "in every seed. undecided: the rest, also where the difference is not 0 but the same "
            "in every seed: a spread of 0 makes the interval a point, which proves nothing. "
            "Yardsticks are the trivial baseline (logit_mask where a class is forgotten whole, "
            "else nothing) and *retrained*.\n",
        ]
    )


def _differing(settings: Mapping[str, Any]) -> list[str]:
    if not settings:
        return []
    lines = "".join(f"    {params.line({path: value})}\n" for path, value in settings.items())
    return [
        f"Parameters that differ from `params.yaml`:\n\n{lines}\nHow they were chosen says the "
        "file that they stand in; parameters of methods that are not named above, and margins of "
        "the verdicts of images, were chosen on the digits and not searched for on these data.\n"
    ]


def _searched(tuned: Path | None) -> list[str]:
    if tuned is None:
        return []
    return [
        f"A method that stands in `{tuned}` has the parameters that were best there in cells of "
        "the same scenario, on other seeds and requests than these; where the search had no such "
        "cells, and where a method was not searched, those that ship.\n"
    ]


def _networks(table: pd.DataFrame) -> str:
    numbers = sorted(table["networks"].unique())
    if numbers == [0]:
        return "Nothing is measured per sample over many networks: `ensemble.families` has none.\n"
    return (
        f"Per sample, each training seed has families of {', '.join(map(str, numbers))} small "
        "networks of their own (`ensemble.members` of these runs); KLoM means nothing without "
        "that of *retrained*, which is of as many.\n"
    )


def _errors(compared: list[Table], seeds: int) -> str:
    """How far the comparisons can be trusted, given how many there are."""
    made = [comparison for table in compared for comparison in table]
    tally = f"This page makes {_tally(made)}"
    if seeds < 2 or not made:
        return f"{tally} One seed has no interval and decides nothing.\n"
    largest = max(map(len, compared))
    wider = statistics.critical(seeds, largest) / statistics.critical(seeds)
    return (
        f"{tally} Of those whose true difference is 0, 5 % look decided, half of them better: "
        f"{0.05 * len(made):.0f} of {len(made)} if no model differed at all. This is not corrected "
        "for, so one decided comparison is weak evidence. Holm's correction over a table of "
        f"{largest} would make its first interval {wider:.1f} times as wide. undecided is no "
        "evidence that models are equal. The interval takes differences for normal; a membership "
        "attack that flips between 0 and 100 is not, nor is the gap through it.\n"
    )


def _glossary(names: Iterable[str]) -> str:
    rows = [(c.name, c.unit, c.aim, c.meaning) for c in _columns(names)]
    return "## Columns\n\n" + markdown(pd.DataFrame(rows, columns=["", "unit", "aim", "meaning"]))


def _columns(names: Iterable[str]) -> list[findings.Explained]:
    """In the order of the tables."""
    known = set(names)
    return findings.explained([n for n in results.columns() if n in known])


def _named(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.rename_axis("model").reset_index()


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
