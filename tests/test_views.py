"""What reviewers see in MLflow: prepared tables and charts, names, versions in the registry."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from imu import verdicts
from tasks.files.workspace import Workspace
from tasks.pages import findings, metrics_page
from tasks.tracking import candidates, views
from tasks.tracking.store import Store
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root: Path = tmp_path_factory.mktemp("views")
    shutil.copy(REPOSITORY / "params.yaml", root)
    return Store(Workspace(root))


def model(name: str, kind: str = "method", outcome: str = "", work: float = 0.0, **metrics: float):
    words = findings.WORDS.get(outcome, outcome)  # type: ignore[call-overload]
    tags = {"model": name, "verdict": outcome, "verdict.words": words}
    metrics |= {views.WORK: work} if work else {}
    return SimpleNamespace(
        data=SimpleNamespace(tags=tags | views.place(kind, outcome, work), metrics=metrics)
    )


def test_models_sort_by_kind_then_verdict_then_cost() -> None:
    models = [
        model("original", "original"),
        model("dear", outcome="indistinguishable", work=50.0),
        model("mask", "baseline", "indistinguishable", 0.1),
        model("lost", outcome="utility lost", work=1.0),
        model("cheap", outcome="indistinguishable", work=6.8),
        model("crashed", outcome="failed", work=0.2),
        model("masked", outcome="masked only", work=0.3),
    ]
    order = sorted(models, key=lambda run: run.data.tags["order"])
    named = [run.data.tags["model"] for run in order]
    assert named == ["cheap", "dear", "masked", "lost", "crashed", "mask", "original"]
    best = views.best(models)  # type: ignore[arg-type]
    assert best is not None
    assert best.data.tags["model"] == "cheap"
    assert views.best(models[:1]) is None  # type: ignore[arg-type]


def test_the_best_model_may_be_given_the_retain_set() -> None:
    models = [
        model("alone", outcome="masked only"),
        model("helped", "with_retain", outcome="indistinguishable"),
    ]
    best = views.best(models)  # type: ignore[arg-type]
    assert best is not None
    assert best.data.tags["model"] == "helped"


def test_the_columns_are_those_that_were_measured_with_the_cost_last() -> None:
    imu = model("imu", FA=0.0, gap=1.0, RTE_work=4.0, work=25.0, relearn_auc=9.0)
    images = views.columns([imu])  # type: ignore[list-item]
    texts = views.columns([model("npo", P_forget=0.1, relearn_P=0.2, dP_forget=0.3)])  # type: ignore[list-item]
    assert images == ["FA", "relearn_auc", "work"]
    assert texts == ["P_forget", "dP_forget", "relearn_P"]
    charts = [views.of_models("", names)["compareRunCharts"] for names in (images, texts)]
    kinds = [[chart["type"] for chart in drawn] for drawn in charts]
    assert kinds == [["BAR", "LINE"], ["BAR", "LINE", "SCATTER"]]
    assert [drawn[0]["metricKey"] for drawn in charts] == ["relearn_auc", "dP_forget"]


@pytest.mark.parametrize(
    ("measured", "drawn"),
    [
        (["FA", "TA", "TFA", "probe_1"], ("TA", "probe_1")),
        (["FA", "TA", "probe_1"], ("TA", "FA")),
        (["P_forget", "MU", "FQ"], ("MU", "FQ")),
        (["P_forget", "P_retain"], ("P_retain", "P_forget")),
        (["KL_forgotten", "KL_truth_retain"], ("KL_truth_retain", "KL_forgotten")),
        (["FA"], None),
    ],
)
def test_forgetting_is_drawn_against_utility(
    measured: list[str], drawn: tuple[str, str] | None
) -> None:
    assert findings.picture(measured) == drawn
    charts = views.of_models("", measured)["compareRunCharts"]
    axes = [(c["xaxis"]["key"], c["yaxis"]["key"]) for c in charts if c["type"] == "SCATTER"]
    assert axes == ([drawn] if drawn else [])


def test_the_experiment_says_what_the_last_run_found_unless_somebody_described_it(
    store: Store,
) -> None:
    def said() -> str:
        tags = store.client.get_experiment(store.experiment).tags
        return str(tags["mlflow.note.content"])

    views.describe(store, "digits · class 8 · seed 0", "[Table](#/t)\n\nBest: imu", [])
    views.describe(store, "digits · class `![a](x)", "[Table](#/t)\n\nBest: npo", ["FA", "KL"])
    assert said().startswith(
        "**Last run.** `digits · class '![a](x)`: Best: npo\n\n[Table](#/t) · [Pipelines](#/"
    )
    assert said().endswith("\n\n*FA* accuracy on the forget set; all: `docs/metrics.md`.")
    store.client.set_experiment_tag(store.experiment, "mlflow.note.content", "My own words.")
    views.describe(store, "", "Best: imu", [])
    assert said() == "My own words."


def test_a_view_is_kept_in_a_tag_of_the_experiment_that_its_link_names(store: Store) -> None:
    state = views.of_models("tags.`pipeline.1` = 'true'", ["FA", "U_LiRA"])
    link = views.share(store, "1", state)
    views.share(store, views.LATEST, state, "Latest run")
    tags = store.client.get_experiment(store.experiment).tags
    assert json.loads(tags["mlflow.sharedViewState.1"]) == state
    named = json.loads(tags["mlflow.sharedViewState.latest"])
    assert named["name"] == "Latest run"
    assert json.loads(named["state"]) == state
    assert link == (
        f"/#/experiments/{store.experiment}/runs?workflowType=machine_learning&viewStateShareKey=1"
    )
    assert views.path(store, "1", charts=True) == f"{link}&compareRunsMode=CHART"
    assert state["selectedColumns"][0] == "metrics.`FA`"
    assert state["selectedColumns"][-1] == "metrics.`U_LiRA`"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"unlearn": {"imu": {"step": 0.25}}, "seed": 0}, "again"),
        ({"unlearn": {"imu": {"step": 0.1}}, "seed": 0}, "unlearn.imu.step 0.1"),
        (
            {"unlearn": {"imu": {"step": 0.25}, "npo": {"beta": 1, "epochs": 2}}, "seed": 0},
            "with npo",
        ),
        ({"unlearn": {"npo": {"beta": 1}}, "seed": 1, "width": 8}, "with npo, without imu, 2 more"),
    ],
)
def test_the_name_of_a_pipeline_says_what_changed(now: dict, said: str) -> None:
    assert views.difference(now, {"unlearn.imu.step": "0.25", "seed": "0"}) == said


def logged(store: Store, name: str, kind: str, outcome: str = "", work: float = 0.0):
    """A run with an empty model."""
    from mlflow.entities import LoggedModelOutput

    words = findings.WORDS.get(outcome, outcome)  # type: ignore[call-overload]
    tags = {"model": name, "verdict": outcome, "verdict.words": words}
    run = store.create(name, tags | views.place(kind, outcome, work))
    made = store.client.create_logged_model(store.experiment, name=name, source_run_id=run)
    store.client.finalize_logged_model(made.model_id, "READY")
    store.client.log_outputs(run, [LoggedModelOutput(made.model_id, 0)])
    return store.client.get_run(run)


def test_the_registry_holds_the_original_and_what_was_accepted_once(store: Store) -> None:
    models = [
        logged(store, "original", "original"),
        logged(store, "dear", "method", "indistinguishable", 50.0),
        logged(store, "cheap", "method", "indistinguishable", 9.0),
        logged(store, "masked", "method", "masked only", 1.0),
        logged(store, "logit_mask", "baseline", "indistinguishable", 0.1),
    ]
    candidates.register(store, models, "digits · class 8 · seed 0")
    candidates.register(store, models, "digits · class 8 · seed 0")
    versions = store.client.search_model_versions("name='digits'")
    assert sorted(v.tags["model"] for v in versions) == ["cheap", "dear", "original"]
    named = {
        alias: store.client.get_model_version_by_alias("digits", alias).tags
        for alias in ("original", "candidate")
    }
    assert named["original"]["model"] == "original"
    assert named["candidate"] == {
        "model": "cheap",
        "verdict": "indistinguishable",
        "forgotten": "digits · class 8 · seed 0",
    }
    candidates.register(store, [models[0], models[3]], "digits · class 3 · seed 0")
    (registered,) = store.client.search_registered_models()
    assert registered.aliases.keys() == {"original"}


def test_what_tests_without_power_accept_is_no_candidate(store: Store) -> None:
    run = logged(store, "powerless", "method", "no evidence")
    candidates.register(store, [run], "")
    versions = store.client.search_model_versions("name='digits'")
    assert "powerless" not in [version.tags["model"] for version in versions]


def test_names_are_as_wide_as_what_is_shown() -> None:
    for state, width in (
        (views.of_models("", ["FA"]), 200),
        (views.of_models("", ["FA"], grouped=True), 300),
        (views.of_pipelines(["FA"]), 300),
    ):
        assert state["columnOrder"] == [views.NAME, *state["selectedColumns"]]
        assert state["columnWidths"][views.NAME] >= width
        assert state["columnWidths"].keys() == {*state["columnOrder"]}


def test_retrained_models_share_a_colour_that_no_method_has() -> None:
    kinds = {f"unlearn/{n}": "method" for n in range(9)} | {"unlearn/own": "with_retain"}
    kinds |= {"retrain/reference": "reference", "retrain/retrain_2": "retrained"}
    looks = views.looks(kinds | {"unlearn/nothing": "baseline", "train": "original"}, "class 8")
    assert looks["retrain/reference"].colour == looks["retrain/retrain_2"].colour
    assert [p for p, look in looks.items() if look.forget != "class 8"] == ["train"]
    methods = [look.colour for look in looks.values() if look.kind in findings.METHODS]
    assert len(set(methods)) == len(views.COLOURS)  # before any is used twice
    assert not {look.colour for look in looks.values() if look.kind not in findings.METHODS} & set(
        methods
    )


def test_every_outcome_of_a_verdict_has_its_place() -> None:
    assert set(views.OUTCOMES) == set(verdicts.OUTCOMES)
    assert views.OUTCOMES[0] == "indistinguishable"


def test_the_page_of_metrics_is_that_of_the_metrics() -> None:
    assert (REPOSITORY / "docs" / "metrics.md").read_text() == metrics_page.page(), (
        "write it again: python -m flows.documents metrics"
    )
