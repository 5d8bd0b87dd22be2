"""Pages over seeds and cells: what they count, average and compare."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from imu import metrics
from tasks.files.artifacts import ArtifactError
from tasks.pages import figures, results, results_page, sweep_page, tables

KINDS = {"reference": "reference", "nothing": "baseline", "logit_mask": "baseline"}
KINDS |= dict.fromkeys(("retrain_2", "retrain_3"), "retrained")
NAN = math.nan
Values = dict[str, list[float]]


def measured(columns: dict[str, Values], class_wise: bool = True) -> pd.DataFrame:
    """Column -> model -> value by seed, as one row per model and seed."""
    models = next(iter(columns.values()))
    return pd.DataFrame(
        [
            {
                "dataset": "digits",
                "scenario": "class" if class_wise else "fraction",
                "forget": "class 8" if class_wise else "stratified 10 %",
                "class_wise": class_wise,
                "seed": seed,
                "networks": 8,
                "model": model,
                "kind": KINDS.get(model, "method"),
                "data_access": "forget",
                "verdict": None if model == "reference" else "distinguishable",
                **{name: values[model][seed] for name, values in columns.items()},
            }
            for model, values in models.items()
            for seed in range(len(values))
        ]
    )


def written(table: pd.DataFrame) -> dict[str, dict[str, dict[str, str]]]:
    """Section -> model -> column -> cell, as the page has it."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for section in re.split(r"^##+ ", results_page.page(table, "make table", "digits"), flags=re.M)[
        1:
    ]:
        title, *lines = section.splitlines()
        rows = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines if "|" in line]
        if rows:
            header, _, *cells = rows
            found[title] = {row[0]: dict(zip(header, row, strict=True)) for row in cells}
    return found


HEADLINE = "class: class 8 (3 seeds)"
TO_MASK = "Distance to the reference: model − logit_mask"
TO_NOTHING = "Distance to the reference: model − nothing"
TO_RETRAINED = "Distance to the reference: model − retrained"
GAPS = {
    "imu": [1.0, 2.0, 3.0],
    "logit_mask": [1.1, 2.2, 6.0],
    "nothing": [9.0, 9.0, 9.0],
    "retrain_2": [2.0, 2.0, 2.0],
    "reference": [0.0, 0.0, 0.0],
}


def test_a_cell_is_mean_and_sample_deviation_over_seeds() -> None:
    assert written(measured({"gap": GAPS}))[HEADLINE]["imu"]["gap"] == "2.00 ± 1.00"


def test_baselines_come_first() -> None:
    models = list(written(measured({"gap": GAPS}))[HEADLINE])
    assert models == ["reference", "retrained", "nothing", "logit_mask", "imu"]


def test_better_in_every_seed_by_noise_is_undecided() -> None:
    """−0.1, −0.2 and −3: mean −1.1, s 1.6462, half the interval 4.3027 · 1.6462 / √3."""
    found = written(measured({"gap": GAPS}))[TO_MASK]["imu"]["gap"]
    assert found == "−1.10 [−5.19, +2.99] undecided"


def test_what_is_consistent_is_decided_against_both_yardsticks() -> None:
    """Half an interval: 4.3027 · 0.02 / √3 and 4.3027 · 0.08 / √3."""
    gaps = {**GAPS, "imu": [1.0, 2.08, 5.92], "retrain_2": [0.0, 1.0, 5.0]}
    page = written(measured({"gap": gaps}))
    assert page[TO_MASK]["imu"]["gap"] == "−0.10 [−0.15, −0.05] **better**"
    assert page[TO_RETRAINED]["imu"]["gap"] == "+1.00 [+0.80, +1.20] **worse**"


def test_equality_and_a_difference_without_spread_are_told() -> None:
    gaps = {**GAPS, "imu": GAPS["logit_mask"], "other": [gap - 1 for gap in GAPS["logit_mask"]]}
    page = written(measured({"gap": gaps}))
    assert page[TO_MASK]["imu"]["gap"] == "equal"
    assert page[TO_MASK]["other"]["gap"] == "−1.00 in every seed, undecided"


def test_one_seed_has_no_spread_and_decides_nothing() -> None:
    page = written(measured({"gap": {model: gaps[:1] for model, gaps in GAPS.items()}}))
    assert page["class: class 8 (1 seed)"]["imu"]["gap"] == "1.00"
    assert page[TO_MASK]["imu"]["gap"] == "−0.10 undecided"


def test_the_picture_shows_mean_distances_over_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, figures.Distance] = {}

    def distances(found: list[figures.Distance], baselines: list[str]) -> bytes:
        given.update({distance.metric: distance for distance in found})
        assert baselines == ["nothing", "logit_mask"]
        return b"png"

    monkeypatch.setattr(figures, "distances", distances)
    gaps = {**GAPS, "other": [0.0, 0.0, 0.0]}
    assert results_page.picture(measured({"gap": gaps, "TV": gaps}), ["imu"]) == b"png"
    assert list(given) == ["gap", "TV"]
    assert list(given["gap"].of_models) == ["nothing", "logit_mask", "imu"]
    assert given["gap"].of_models["imu"] == 2.0
    assert (given["gap"].of_variability, given["gap"].unit) == (2.0, "points")


def test_what_differs_from_the_parameters_stands_on_the_page() -> None:
    table = measured({"gap": GAPS}).assign(networks=0)
    page = results_page.page(table, "x", "small", {"split.used": 0.1, "network": {"name": "vit"}})
    assert "# Results on small\n" in page
    assert "    split.used: 0.1\n    network: {name: vit}\n" in page
    assert "Nothing is measured per sample over many networks" in page
    plain = results_page.page(measured({"gap": GAPS}), "make table", "digits")
    assert "Parameters that differ" not in plain
    assert "families of 8 small networks" in plain


def test_the_yardstick_is_masking_class_wise_and_nothing_else() -> None:
    assert TO_NOTHING not in written(measured({"gap": GAPS}))
    page = written(measured({"gap": GAPS}, class_wise=False))
    assert TO_MASK not in page
    assert list(page[TO_NOTHING]) == ["imu"]
    assert list(page[TO_RETRAINED]) == ["nothing", "imu"]


def test_models_are_compared_by_metrics_that_there_are() -> None:
    """A metric that got another name would leave the comparison silently."""
    assert set(results.DISTANCES) <= metrics.about().keys()


def test_the_page_says_how_many_comparisons_it_makes() -> None:
    gaps = {**GAPS, "imu": [1.0, 2.08, 5.92], "retrain_2": [0.0, 1.0, 5.0]}
    page = results_page.page(measured({"gap": gaps, "gap_acc": gaps}), "make table", "digits")
    assert page.count("2 comparisons: 2 better, 0 worse, 0 equal, 0 undecided.") == 1
    assert page.count("4 comparisons: 0 better, 4 worse, 0 equal, 0 undecided.") == 1
    assert "This page makes 6 comparisons: 2 better, 4 worse, 0 equal, 0 undecided." in page
    # t(1 − 0.025 / 4; 2) = 8.8602, t(0.975; 2) = 4.3027
    assert "over a table of 4 would make its first interval 2.1 times as wide" in page


@pytest.fixture
def _probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world with two attacks on features and a new metric of outputs."""
    known = metrics.about() | {
        "probe_1": metrics.About("features", "reference", "%", "of the class"),
        "proto_7": metrics.About("features", "reference", "%", "of seven prototypes"),
        "brand_new": metrics.About("distance", "low", "", "|a − b|"),
    }
    monkeypatch.setattr(metrics, "about", lambda: known)


PROBES = {
    "reference": [60.0, 60.0, 60.0],
    "retrain_2": [50.0, 59.0, 61.0],
    "retrain_3": [70.0, 59.0, 63.0],
    "logit_mask": [97.0, 98.0, 99.0],
    "imu": [59.0, 61.0, 60.5],
}


@pytest.mark.usefixtures("_probed")
def test_retrained_models_are_pooled_within_a_seed() -> None:
    """Values 60, 59, 62; distances 10, 1, 2, so the signs of 50 and 70 do not cancel."""
    page = written(measured({"probe_1": PROBES}))
    assert page[HEADLINE]["retrained"]["probe_1"] == "60.33 ± 1.53 (+0.33)"
    assert "retrain_3" not in page[HEADLINE]
    # imu − retrained: −9, 0, −1.5; logit_mask − retrained: 27, 37, 37
    assert page[TO_RETRAINED]["imu"]["probe_1"].startswith("−3.50 [")
    assert page[TO_RETRAINED]["logit_mask"]["probe_1"].startswith("+33.67 [")


@pytest.mark.usefixtures("_probed")
def test_features_are_shown_beside_the_reference_and_compared_by_distance() -> None:
    page = written(measured({"probe_1": PROBES}))
    assert page[HEADLINE]["reference"]["probe_1"] == "60.00 ± 0.00"
    assert page[HEADLINE]["logit_mask"]["probe_1"] == "98.00 ± 1.00 (+38.00)"
    assert page[HEADLINE]["imu"]["probe_1"] == "60.17 ± 1.04 (+0.17)"
    # 1, 1, 0.5 against 37, 38, 39: below the reference is as far as above
    assert page[TO_MASK]["imu"]["probe_1"].startswith("−37.17 [")


@pytest.mark.usefixtures("_probed")
def test_a_new_metric_appears_unasked_under_its_group() -> None:
    columns = dict.fromkeys(("gap", "proto_7", "brand_new", "RTE_work"), PROBES)
    page = written(measured(columns))
    assert list(page[HEADLINE]["imu"]) == ["model", "data access", "verdicts", "gap", "RTE_work"]
    assert page[metrics.GROUPS["distance"]]["imu"] == {
        "model": "imu",
        "brand_new": "60.1667 ± 1.0408",
    }
    assert page[metrics.GROUPS["features"]]["imu"]["proto_7"] == "60.17 ± 1.04 (+0.17)"
    assert metrics.GROUPS["outcome"] not in page  # the first table has them all
    assert "brand_new" not in page[TO_MASK]["imu"]
    assert page["Columns"]["brand_new"]["meaning"] == "\\|a − b\\|"
    assert list(page["Columns"]) == ["gap", "proto_7", "brand_new", "RTE_work"]


def test_what_does_not_exist_is_a_dash_and_not_compared() -> None:
    columns = {"gap": GAPS, "TV": {**GAPS, "imu": [NAN] * 3}, "TFA": dict.fromkeys(GAPS, [NAN] * 3)}
    page = written(measured(columns))
    assert page[HEADLINE]["imu"]["TV"] == "–"
    assert page[TO_MASK]["imu"]["TV"] == "–"
    assert "TFA" not in page[HEADLINE]["imu"]
    assert "TFA" not in page["Columns"]


def test_what_is_absent_in_some_seeds_is_an_error_but_costs_say_so() -> None:
    partly = {**GAPS, "imu": [1.0, NAN, 2.0]}
    with pytest.raises(ArtifactError, match="gap of imu: 1 of 3 values are absent"):
        results_page.page(measured({"gap": partly}), "make table", "digits")
    with pytest.raises(ArtifactError, match="RA of imu: 1 of 3 values are absent"):
        results_page.page(measured({"gap": GAPS, "RA": partly}), "make table", "digits")
    others = {**GAPS, "retrain_3": [2.0, NAN, 2.0]}
    with pytest.raises(ArtifactError, match="gap is absent in some retrained models"):
        results_page.page(measured({"gap": others}), "make table", "digits")
    found = written(measured({"gap": GAPS, "RTE_work": partly}))[HEADLINE]["imu"]["RTE_work"]
    assert found == "1.5 ± 0.7 (2 of 3 seeds)"


def test_verdicts_are_counted_over_seeds_and_those_of_retraining_over_models() -> None:
    table = measured({"gap": {**GAPS, "retrain_3": [2.0, 2.0, 2.0]}})
    table.loc[(table["model"] == "imu") & (table["seed"] > 0), "verdict"] = "masked only"
    table.loc[table["model"] == "retrain_3", "verdict"] = "indistinguishable"
    page = written(table)[HEADLINE]
    assert page["imu"]["verdicts"] == "masked only 2/3, distinguishable 1/3"
    assert page["retrained"]["verdicts"] == "distinguishable 3/6, indistinguishable 3/6"
    assert page["reference"]["verdicts"] == "–"


def tried(gaps: dict[str, list[float]]) -> pd.DataFrame:
    """One row per candidate of ``m`` and cell."""
    return pd.DataFrame(
        [
            {
                "scenario": ("class", "fraction")[cell],
                "forget": "class 1",
                "seed": 7,
                "draw": 0,
                "entry": "m",
                "candidate": candidate,
                "gap": gap,
            }
            for candidate, values in gaps.items()
            for cell, gap in enumerate(values)
        ]
    )


def test_the_candidate_with_the_smallest_mean_gap_is_taken() -> None:
    table = tried({'{"a": 1}': [1.0, 9.0], '{"a": 2}': [4.0, 4.0], '{"a": 3}': [0.0, math.nan]})
    assert tables.best(table) == {"m": {"a": 2}}
    lines = tables.tuning_page(table, "make tune").splitlines()
    assert [line for line in lines if line.endswith("all, fraction |")] == [
        '| {"a": 2} | 4.00 | 4.00 | 4.00 | 4.00 | 0 | all, fraction |'
    ]
    assert "| candidate | mean | max | class | fraction | failed | best for |" in lines
    assert '| {"a": 1} | 5.00 | 9.00 | 1.00 | 9.00 | 0 |  |' in lines
    assert '| {"a": 3} | 0.00 | 0.00 | 0.00 | nan | 1 | class |' in lines


def test_a_method_of_which_every_candidate_failed_has_no_best() -> None:
    with pytest.raises(ArtifactError, match="every candidate of m failed"):
        tables.best(tried({'{"a": 1}': [1.0, math.nan]}))


def test_candidates_of_all_cells_are_collected(tmp_path: Path) -> None:
    folders = {}
    for seed in (7, 8):
        root = folders[f"class/{seed}"] = tmp_path / str(seed)
        (root / "runs" / "split").mkdir(parents=True)
        (root / "params.yaml").write_text(f"seed: {seed}\ndata: {{seed: {seed % 2}}}\n")
        (root / "runs" / "split" / "request.json").write_text(
            '{"forget": "class 1", "scenario": "class"}'
        )
    said = {
        "class/7": {"FA": 3.0, "gap": 1.5, "failure": ""},
        "class/8": {"gap": None, "failure": "a loss is nan, they say"},
    }
    found = tables.candidates(folders, {"m": [({"step": 0.1}, said)]})
    columns = ["scenario", "forget", "seed", "draw", "entry", "candidate", "FA", "gap", "failure"]
    assert [*found] == columns
    assert found["seed"].tolist() == [7, 8]
    assert found["gap"].isna().tolist() == [False, True]
    assert found["failure"][1] == "a loss is nan, they say"
    assert found["candidate"].tolist() == ['{"step": 0.1}'] * 2
    page = tables.tuning_page(found.assign(gap=1.0), "make tune")
    assert "Cells: class 1 (seed 7, data.seed 1), class 1 (seed 8, data.seed 0). " in page


def cell(root: Path, seed: int, without: str = "") -> tuple[str, dict[str, dict[str, float]]]:
    """A cell's folder, and what closing it said."""
    for part in ("split", "report"):
        (root / "runs" / part).mkdir(parents=True)
    (root / "params.yaml").write_text(
        f"seed: {seed}\n"
        "unlearn: {imu: {data_access: forget}, nothing: {data_access: forget}}\n"
        "ensemble: {members: 8, families: {oracle: {}}}\n"
    )
    request = {"dataset": "digits", "scenario": "ids", "forget": "ids in x", "forget_classes": [8]}
    request["objective"] = "classification"
    (root / "runs" / "split" / "request.json").write_text(json.dumps(request))
    (root / "runs" / "report" / "table.csv").write_text(
        "model,kind,gap,TFA,RTE_work\nreference,reference,0.0,,\nagain,retrained,0.5,,\n"
        f"nothing,baseline,9.0,,\nimu,with_retain,{1.0 + seed},,4.5\n"
    )
    said = {"outcome": "masked only", "words": "masked only (features)", "decided": ["probe 97"]}
    verdicts = {model: said for model in ("imu", "nothing", "again") if model != without}
    (root / "runs" / "report" / "verdicts.json").write_text(json.dumps(verdicts))
    return str(root), {"times": {"imu": 2.5}}


def test_cells_become_rows_with_kind_verdict_and_time(tmp_path: Path) -> None:
    found = results.collected(dict(cell(tmp_path / str(seed), seed) for seed in (0, 1)))
    assert found["class_wise"].all()
    assert found.set_index(["model", "seed"])["gap"].to_dict() == {
        ("reference", 0): 0.0,
        ("again", 0): 0.5,
        ("nothing", 0): 9.0,
        ("imu", 0): 1.0,
        ("reference", 1): 0.0,
        ("again", 1): 0.5,
        ("nothing", 1): 9.0,
        ("imu", 1): 2.0,
    }
    rows = found.drop_duplicates("model").set_index("model")
    columns = ["kind", "data_access", "verdict", "RTE_work", "RTE_time"]
    assert rows[columns].astype(object).fillna("none").T.to_dict("list") == {
        "reference": ["reference", "retain", "none", "none", "none"],
        "again": ["retrained", "retain", "masked only", "none", "none"],
        "nothing": ["baseline", "forget", "masked only", "none", "none"],
        "imu": ["with_retain", "forget", "masked only", 4.5, 2.5],
    }
    page = written(found)
    assert page["ids: ids in x (2 seeds)"]["retrained"]["verdicts"] == "masked only 2/2"
    assert list(page[TO_RETRAINED]) == ["imu"]  # there is no mask to beat


def test_a_missing_model_or_verdict_is_an_error(tmp_path: Path) -> None:
    cells = dict(cell(tmp_path / str(seed), seed) for seed in (0, 1))
    table = tmp_path / "1" / "runs" / "report" / "table.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ArtifactError, match="models are missing in some cells"):
        results.collected(cells)
    results.collected(dict([cell(tmp_path / "3", 3, without="again")]))  # one model has no other
    with pytest.raises(ArtifactError, match=r"verdicts\.json has no \['imu'\]"):
        results.collected(dict([cell(tmp_path / "2", 2, without="imu")]))


def test_a_method_that_failed_in_a_seed_is_told_and_not_compared() -> None:
    gaps = {**GAPS, "imu": [1.0, NAN, 3.0], "other": [NAN, NAN, NAN]}
    table = measured({"gap": gaps})
    table["verdict"] = table["verdict"].mask(table["gap"].isna(), "failed")
    page = written(table)
    assert page[HEADLINE]["imu"]["gap"] == "2.00 ± 1.41 (2 of 3 seeds)"
    assert page[HEADLINE]["imu"]["verdicts"] == "failed 1/3, distinguishable 2/3"
    assert page[HEADLINE]["other"]["gap"] == "–"
    assert page[TO_MASK]["imu"]["gap"] == "failed in 1 of 3 seeds"
    assert page[TO_MASK]["other"]["gap"] == "failed in 3 of 3 seeds"
    assert results_page.picture(table, ["imu", "other"])


def test_a_value_that_is_absent_without_a_failure_is_refused() -> None:
    with pytest.raises(ArtifactError, match="gap of imu: 1 of 3 values are absent"):
        results_page.page(measured({"gap": {**GAPS, "imu": [1.0, NAN, 3.0]}}), "", "digits")


def test_a_baseline_that_passes_takes_the_power_from_the_verdicts() -> None:
    table = measured({"gap": GAPS})
    table.loc[table["model"] == "nothing", "verdict"] = "not forgotten"
    masked = (table["model"] == "logit_mask") & (table["seed"] < 2)
    table.loc[masked, "verdict"] = "no evidence"
    page = results_page.page(table, "", "digits")
    assert "**A mask on the logit passes as one that forgot in 2 of 3 seeds: there" in page
    assert "The original model passes" not in page
    assert "**Retraining with another seed fails in 3 of 3 models: about so often" in page
    table["verdict"] = "indistinguishable"
    page = results_page.page(table.assign(class_wise=False), "", "digits")
    assert "Retraining with another seed fails" not in page
    assert "**The original model passes as one that forgot in 3 of 3 seeds" in page
    assert "A mask on the logit passes" not in page


def test_the_page_of_a_sweep_begins_with_the_best_method_over_the_seeds() -> None:
    models = ("reference", "retrain_2", "nothing", "masked", "cheap", "dear", "broken")
    accuracies: Values = {m: [0.0, 1.0, 2.0] for m in models} | {"broken": [NAN] * 3}
    saved = {m: [NAN] * 3 for m in models} | {"cheap": [10.0] * 3, "dear": [2.0] * 3}
    table = measured({"FA": accuracies, "RTE_work": saved})
    given = {"cheap": "indistinguishable", "dear": "indistinguishable", "broken": "failed"}
    table["verdict"] = table["model"].map(given).fillna(table["verdict"])
    table.loc[table["model"].isin(["cheap", "dear"]) & (table["seed"] == 0), "verdict"] = (
        "masked only"
    )
    (part,) = sweep_page.parts(table)
    order = ["cheap", "dear", "masked", "broken", "nothing", "retrained", "reference"]
    assert [row.model for row in part.rows] == order
    assert part.best == "cheap"
    best = part.rows[0]
    assert best.outcome == "masked only"
    assert best.verdicts == "masked only 1/3, indistinguishable 2/3"
    cells = dict(zip([column.name for column in part.columns], best.cells, strict=True))
    assert cells == {"FA": "1.00 ± 1.00", "work": "10.00 ± 0.00"}
    assert (
        part.said["What did it cost?"]
        == "10.0\N{NARROW NO-BREAK SPACE}% of the work of retraining."
    )
    (panel,) = part.panels["Did it forget?"]
    assert [len(line.dots) for line in panel.lines] == [3, 3, 3, 0, 3, 3, 3]  # one a seed
    (figure,) = part.figures["Did it forget?"]
    (line,) = figure.lines
    assert len(line.dots) == len(order) - 1
    assert line.dots[-1].title == "cheap: 1.00 ± 1.00"  # on top
    assert all(0 <= dot.at <= 100 for dot in line.dots)
    html = sweep_page.page([part], "two", {"a < b": "no room"}, "all of it")
    assert "<li>a &lt; b: no room</li>" in html
    assert html.index("10.0") < html.index("<details") < html.index("<p>all of it</p>")
    lines = [line for line in sweep_page.short([part]).splitlines() if line.startswith("|")]
    assert lines[2].startswith("| cheap | masked only 1/3, ")
