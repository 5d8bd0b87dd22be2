"""docs/influence-quality.md and the CSV that it is made from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.quality import estimators, oracle, scoring, truth
from imu.statistics import Comparison, compare
from tasks.files import artifacts
from tasks.pages import tables

COMMAND = "python -m benchmarks.quality"
MEASURES = {
    "TV_forget": "TV on the forget set",
    "TV_test": "TV on queries",
    "margin_forget": "margin",
}
SHOWN = 5  # estimators that a sentence lists
DEFAULT, OF_PAIRS = "mean, diagonal, head", "self, diagonal, head"
OUTCOMES = ("better", "worse", "equal", "undecided")
KEYS = ["setting", "scenario", "cell", "method", "weights", "measure"]


def write(settings: list[truth.Setting], kept: Path, root: Path) -> None:
    """From what lies there of each setting; others stay as the CSV has them."""
    scored, cells = [], []
    docs = root / "docs"
    for setting in settings:
        folder = kept / setting.key
        of, found = truth.scene(setting, root, kept), truth.Truth.read(folder)
        said = [together(folder, number) for number in range(estimators.ORIGINALS)]
        said = [each for each in said if each]
        if said:
            scored.append(scoring.scored(setting, found, of.wrong, of.together, said))
        for path in sorted(folder.glob("oracle-*.npz")):
            _, scenario, number = path.stem.split("-")
            for key, value in np.load(path).items():
                about = [setting.name, scenario, number, *key.split("/")]
                cells.append(dict(zip(KEYS, about, strict=True)) | {"value": float(value)})
    table = pd.concat(scored or [pd.DataFrame({"setting": []})])
    judged = pd.DataFrame(cells, columns=[*KEYS, "value"]).astype({"value": float})
    if (before := docs / "influence-quality.csv").is_file():
        former = pd.read_csv(before, dtype={"cell": "str"})
        order = [setting.name for setting in truth.SETTINGS]
        table = pd.concat([_others(former, "estimators", table), table])
        judged = pd.concat([_others(former, "oracle", judged)[judged.columns], judged])
        judged[KEYS] = judged[KEYS].fillna("")  # as doing nothing has no weights
        table, judged = (
            rows.sort_values("setting", key=lambda s: s.map(order.index), kind="stable")
            for rows in (table, judged)
        )
    both = pd.concat([table.assign(part="estimators"), judged.assign(part="oracle")])
    artifacts.write_text(
        docs / "influence-quality.csv", both.to_csv(index=False, float_format="%.6g")
    )
    artifacts.write_text(docs / "influence-quality.md", text(table, judged))


def _others(former: pd.DataFrame, part: str, now: pd.DataFrame) -> pd.DataFrame:
    """Rows of settings that are not made again."""
    kept = (former["part"] == part) & ~former["setting"].isin(now["setting"])
    return former[kept].drop(columns="part").dropna(axis=1, how="all")


def together(folder: Path, number: int) -> scoring.Found:
    """What all groups of estimators that are done say of a network."""
    paths = [folder / f"estimates-{number}-{group}.npz" for group in estimators.GROUPS]
    done = [np.load(path) for path in paths if path.exists()]
    return {name: value for group in done for name, value in group.items()}


def text(table: pd.DataFrame, judged: pd.DataFrame) -> str:
    shown = [s for s in truth.SETTINGS if (table["setting"] == s.name).any()]
    parts = [
        "# Is influence any good, and would a perfect one help?\n",
        tables.provenance(COMMAND),
        "Ground truth by retraining: many networks are trained on random "
        f"{100 * truth.PART:.0f} % of the training samples each. *Memorisation* of a sample "
        "(Feldman & Zhang 2020): mean probability of its label over the networks that had it, "
        "minus that over those that had not; *of margin*: the same of log(p / (1 − p)). Networks: "
        + "; ".join(described(s) for s in shown)
        + ".\n",
        "## In short\n",
        *answers(table, judged),
        "## Estimators\n",
        "Spearman's rank correlation with memorisation over all training samples, mean over "
        "networks that were trained on all of them; *LDS*: the linear datamodeling score, for "
        "estimators that score pairs of a training sample and a query; *flipped*: AUC of finding "
        "wrong labels. In brackets 95 % intervals of the bootstrap over samples (of texts, over "
        "people) or queries and networks. *minus loss*: the difference to the loss, which costs "
        "one pass, in the same draws. *ceiling*: what a perfect estimator would reach, as the "
        "truth itself is noisy. "
        "*self*, *mean*: the scores of `imu.influences`, where damping is 0.01 or (*small*) a "
        "tenth of the mean of the Fisher's diagonal; *gradient norm*: without curvature; *TracIn*: "
        "the same summed over the checkpoints of all epochs, times the learning rate; *random*: "
        "one draw, whose interval leaves out that another ranks otherwise: correlations as small "
        "as its own say nothing. Seconds are "
        "those of all training samples, and (pairs) of all queries.\n",
    ]
    for setting in shown:
        own = table[table["setting"] == setting.name]
        parts += [f"### {setting.name}\n", tables.markdown(estimator_table(own))]
    if len(judged):
        parts += oracle_part(judged)
    return "\n".join(parts)


def described(setting: truth.Setting) -> str:
    if setting.of_texts:
        return (
            f"*{setting.name}*: {setting.networks} of `gpt_small` and {setting.epochs} epochs, "
            f"{setting.trained} questions about people, of whom each network knows "
            f"{100 * truth.PART:.0f} %; the probability is that of the mean margin over the tokens "
            "of an answer"
        )
    images = {
        "digits": "images of the digits",
        "cifar": "photographs of CIFAR-10 (JPEG), 16×16 pixels",
    }
    flipped = f", {100 * setting.flipped:.0f} % of the labels wrong" if setting.flipped else ""
    return (
        f"*{setting.name}*: {setting.networks} of width {setting.width} and {setting.epochs} "
        f"epochs, {setting.trained:,} {images[setting.images]}{flipped}"
    )


def estimator_table(own: pd.DataFrame) -> pd.DataFrame:
    def cell(measure: str, name: str) -> str:
        row = own[(own["measure"] == measure) & (own["name"] == name)]
        if row.empty:
            return ""
        value, low, high = row[["value", "low", "high"]].iloc[0]
        return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    def over(name: str) -> str:
        row = own[(own["measure"] == "memorisation") & (own["name"] == name)]
        if row.empty or np.isnan(row["over"].iloc[0]):
            return ""
        value, low, high = row[["over", "over_low", "over_high"]].iloc[0]
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"

    def seconds(name: str) -> str:
        of = own[own["name"] == name].dropna(subset="seconds").groupby(own["measure"] == "LDS")
        return ", ".join(f"{each['seconds'].iloc[0]:.2g}{' (pairs)' * pair}" for pair, each in of)

    measures = [m for m in own["measure"].unique() if m != "ceiling"]
    first = own[own["measure"] == "memorisation"].sort_values("value", ascending=False)["name"]
    names = [*first, *(n for n in own["name"].unique() if n not in set(first))]
    return pd.DataFrame(
        {"estimator": name}
        | {measure: cell(measure, name) for measure in measures}
        | {"minus loss": over(name), "seconds": seconds(name)}
        for name in names
    )


def oracle_part(judged: pd.DataFrame) -> list[str]:
    parts = [
        "## Methods that are handed the truth\n",
        "Every cell has an original, a forget set of its own (one class, or a random tenth of the "
        f"training samples), {oracle.JUDGES} networks retrained without it that judge, and "
        f"{oracle.TELLERS} others from which the oracle *retraining* knows how far each sample's "
        "margin falls. A method runs with the same target under every weighting, the one that "
        "ships; where labels are wrong it is the mean margin after retraining. Class-wise "
        "`imu_deep` has no weights. Mean over cells of the mean distance to the judges: TV of the "
        "predictions in %, and of the forget set's margins the mean difference in logits. In "
        "brackets the mean difference to *uniform* with its 95 % interval over cells, which the "
        "comparisons share; **nearer** "
        "and *farther* where it excludes 0. `imu_deep` stops after whole epochs, so its mean "
        "margins differ a little between weightings. Oracles cannot be had in practice and ship "
        "nowhere. "
        f"`imu` runs with step {oracle.IMU.step} throughout.\n",
    ]
    for (setting, scenario), own in judged.groupby(["setting", "scenario"], sort=False):
        count = own["cell"].nunique()
        parts.append(f"### {setting}, {scenario}: {count} cells\n")
        rows = []
        for (method, weights), of in own.groupby(["method", "weights"], sort=False):
            row = {"method": method, "weights": weights + " (oracle)" * (weights in oracle.ORACLES)}
            for measure, title in MEASURES.items():
                row[title] = oracle_cell(own, str(method), str(weights), measure)
            for measure, title in (("margin", "mean margin"), ("TA", "accuracy on queries, %")):
                row[title] = f"{of[of['measure'] == measure]['value'].mean():.2f}"
            reached = of[of["measure"] == "reached"]["value"]
            row["at the target"] = f"{reached.sum():.0f} of {len(reached)}" if len(reached) else ""
            rows.append(row)
        parts.append(tables.markdown(pd.DataFrame(rows)))
    return parts


def versus(own: pd.DataFrame, method: str, weights: str, measure: str) -> Comparison | None:
    """Cell by cell, against uniform weights."""
    values = own[own["measure"] == measure].pivot_table(
        index="cell", columns=["method", "weights"], values="value"
    )
    if (method, weights) not in values or (method, "uniform") not in values or weights == "uniform":
        return None
    return compare(values[method, weights].to_numpy(), values[method, "uniform"].to_numpy())


def oracle_cell(own: pd.DataFrame, method: str, weights: str, measure: str) -> str:
    at = (own["method"] == method) & (own["weights"] == weights) & (own["measure"] == measure)
    mean = f"{own[at]['value'].mean():.2f}"
    found = versus(own, method, weights, measure)
    if found is None or found.difference.interval is None:
        return mean
    low, high = found.difference.interval
    said = {"better": "**nearer** ", "worse": "*farther* "}.get(found.outcome, "")
    return f"{mean} ({said}{found.difference.mean:+.2f} [{low:+.2f}, {high:+.2f}])"


def answers(table: pd.DataFrame, judged: pd.DataFrame) -> list[str]:
    """What the numbers say, in sentences that are made from them."""
    lines = []
    for setting, own in table[table["measure"] == "memorisation"].groupby("setting", sort=False):
        by = own.set_index("name")
        said = by.drop(index="ceiling")
        best = said["value"].idxmax()
        clear = said[said["over_low"] > 0].index
        reached = {
            name: f"{by.loc[name, 'value']:.3f}" for name in (best, "loss", "ceiling", DEFAULT)
        }
        lines.append(
            f"*{setting}*: `{best}` ranks memorisation best, at {reached[best]}; the loss reaches "
            f"{reached['loss']}, a perfect estimator would {reached['ceiling']}, the default of "
            f"`imu.influence`, `{DEFAULT}`, {reached[DEFAULT]}. Clearly above the loss: "
            f"{listed(clear.tolist(), len(said))}."
        )
    pairs = table[table["measure"] == "LDS"]
    for setting, own in pairs.groupby("setting", sort=False):
        by = own.set_index("name")
        best = own.loc[own["value"].idxmax()]
        lines.append(
            f"*{setting}*, pairs: `{best['name']}` has the best LDS, {best['value']:.3f} "
            f"[{best['low']:.3f}, {best['high']:.3f}]; `{OF_PAIRS}`, the default of "
            f"`imu.influence` with queries, {by.loc[OF_PAIRS, 'value']:.3f}."
        )
    if len(judged):
        lines += [*room(judged), *oracle_answers(judged)]
    return ["\n".join(f"- {line}" for line in lines) + "\n"]


def listed(names: list[str], of: int) -> str:
    if len(names) > SHOWN:
        return f"{len(names)} of {of}, {'with' if 'random' in names else 'without'} `random`"
    return ", ".join(f"`{name}`" for name in names) or "none"


def rooms(judged: pd.DataFrame) -> Iterator[tuple[str, str, float, float, pd.Series]]:
    """Setting, scenario, and by the first of the measures how far doing nothing is, and another
    retrained network, and all models."""
    at_first = judged[judged["measure"] == next(iter(MEASURES))]
    for (setting, scenario), own in at_first.groupby(["setting", "scenario"], sort=False):
        mean = own.groupby(["method", "weights"])["value"].mean()
        yield setting, scenario, mean["nothing", ""], mean["retrained", ""], mean


def room(judged: pd.DataFrame) -> list[str]:
    """What there is to gain."""
    lines = []
    for setting, scenario, nothing, again, mean in rooms(judged):
        uniform = ", ".join(
            f"`{method}` with uniform weights at {value:.2f}"
            for (method, weights), value in mean.items()
            if weights == "uniform"
        )
        lines.append(
            f"*{setting}, {scenario}*: doing nothing lies at a TV of {nothing:.2f} on the forget "
            f"set, a network retrained with another seed at {again:.2f}, {uniform}."
            + " There is nothing to forget by this measure." * bool(nothing <= again)
            + short(judged[(judged["setting"] == setting) & (judged["scenario"] == scenario)])
        )
    return lines


def short(own: pd.DataFrame) -> str:
    """How many runs ended short of the target: these did not forget equally much."""
    reached = own[own["measure"] == "reached"]["value"]
    missed = int((reached == 0).sum())
    if missed == 0:
        return ""
    return (
        f" {missed} of {len(reached)} runs ended short of the target, so that what they forgot is "
        "not equal: see the mean margins."
    )


def oracle_answers(judged: pd.DataFrame) -> list[str]:
    """How often each kind of weights is nearer to retraining than uniform ones."""
    counts: dict[str, dict[str, dict[str, int]]] = {}  # by weights and where
    for (setting, scenario), own in judged.groupby(["setting", "scenario"], sort=False):
        pairs = own[["method", "weights"]].drop_duplicates().itertuples(index=False)
        for method, weights in pairs:
            for measure in MEASURES:
                if (found := versus(own, str(method), str(weights), measure)) is not None:
                    here = counts.setdefault(str(weights), {})
                    of = here.setdefault(f"{setting}, {scenario}", dict.fromkeys(OUTCOMES, 0))
                    of[found.outcome] += 1
    total = {
        weights: {outcome: sum(of[outcome] for of in here.values()) for outcome in OUTCOMES}
        for weights, here in counts.items()
    }
    lines = [
        f"Weights *{weights}{' (oracle)' * (weights in oracle.ORACLES)}* against *uniform*, at the "
        f"same target: nearer to retraining in {of['better']}, farther in {of['worse']} of "
        f"{sum(of.values())} comparisons ("
        + "; ".join(
            f"{where}: {own['better']} and {own['worse']} of {sum(own.values())}"
            for where, own in counts[weights].items()
        )
        + "); by chance 1 in 40 would be either."
        for weights, of in total.items()
    ]
    best = max(oracle.ORACLES, key=lambda kind: total[kind]["better"] - total[kind]["worse"])
    gained = total[best]["better"] - total[best]["worse"]
    if 2 * gained > sum(total[best].values()):
        said = "It beats uniform weights in most comparisons: what it gains is the goal."
    elif gained > 0:
        said = (
            "It beats uniform weights in some comparisons and not in most: knowing the truth helps "
            "little."
        )
    elif any(nothing > again for _, _, nothing, again, _ in rooms(judged)):
        said = (
            "Not even it is shown to beat uniform weights: influence is not shown to be what lacks."
        )
    else:
        said = (
            "It is not shown to beat uniform weights, but in no setting here was there anything to "
            "forget: where there is, this decides nothing."
        )
    return [*lines, f"The best oracle is *{best}*. {said}"]
