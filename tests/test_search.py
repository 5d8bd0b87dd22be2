"""The search for parameters by Optuna: what may be tried, what is tried, and how it goes on."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError
from ruamel.yaml import YAML

from flows.running.requests import Method
from flows.search import identity, understood
from flows.searching import space as spaces
from flows.searching import tuning
from flows.searching.space import Range
from flows.searching.study import Study
from flows.searching.tuning import Outcome
from tasks.files import params
from tasks.files.workspace import Workspace
from tasks.pages import search_page
from tasks.tracking.store import Store
from tasks.tracking.sweeps import Group
from tasks.unlearn import entries
from tests.conftest import REPOSITORY, change, keep, make_workspace, run, started

IMU = entries()["imu"]
SPACE = {"step": Range(low=0.01, high=1.0, log=True)}


def outcome(gap: float | None, failure: str) -> Outcome:
    return Outcome({"a": {"gap": gap, "failure": failure}, "b": {"gap": 1.0, "failure": ""}})


TOO_FAR = outcome(None, "too far")


class Bowl:
    """Judges by the distance of ``step`` to 0.3, fails above 0.8; counts what it was asked."""

    def __init__(self, stop_after: int = 1000):
        self.judged: list[float] = []
        self.stop_after = stop_after

    def __call__(self, candidates: Sequence[dict[str, Any]]) -> list[Outcome]:
        if len(self.judged) + len(candidates) > self.stop_after:
            raise KeyboardInterrupt
        steps = [candidate["step"] for candidate in candidates]
        self.judged += steps
        return [TOO_FAR if step > 0.8 else outcome(abs(step - 0.3), "") for step in steps]


def study(folder: Path, space: spaces.Space = SPACE) -> Study:
    return Study(folder / "study.db", "key", spaces.distributions(space, IMU), seed=0)


def test_a_space_is_read_from_a_command_line() -> None:
    said = ["step=1e-2..1:log", "max_steps=10..500", "weights=influence,permuted"]
    assert spaces.read(said) == {
        "step": Range(low=0.01, high=1, log=True),
        "max_steps": Range(low=10, high=500),
        "weights": ["influence", "permuted"],
    }
    assert spaces.fixed(["weights=permuted", "max_steps=7"]) == {
        "weights": "permuted",
        "max_steps": 7,
    }


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["step"], "'step' must be PARAMETER=LOW..HIGH"),
        (["step=0.1"], "PARAMETER=CHOICE,CHOICE"),
        (["=1..2"], "'=1..2' must be PARAMETER"),
        (["step=a..b"], "'step=a..b' must be"),
        (["step=1...inf"], "of finite values"),
        (["step=1,[2"], "'[2' is no value"),
        (["step=2..1"], "space: step: low must be < high, got 2 and 1"),
        (["step=0..1:log"], "low must be > 0 where log is true, got 0"),
        (["step=1..2", "step=1,2"], "'step' is named twice"),
    ],
)
def test_what_is_no_space_is_refused(said: list[str], message: str) -> None:
    with pytest.raises(params.ParameterError) as raised:
        spaces.read(said)
    assert message in str(raised.value)


def test_whole_numbers_stay_whole_and_choices_are_choices() -> None:
    given: spaces.Space = {
        "step": Range(low=1, high=2),
        "max_steps": Range(low=10, high=500, log=True),
        "weights": ["influence", "uniform"],
    }
    assert spaces.distributions(given, IMU) == {
        "step": FloatDistribution(1.0, 2.0),
        "max_steps": IntDistribution(10, 500, log=True),
        "weights": CategoricalDistribution(["influence", "uniform"]),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": [1, 2]}, "imu has no parameter 'steps'; known are weights, step, max_steps"),
        ({"step": Range(low=-1, high=1)}, "step must be > 0, got -1.0"),
        ({"step": ["fast", "slow"]}, "imu.step: Input should be a valid number, got 'fast'"),
        ({"max_steps": Range(low=1.5, high=2)}, "imu.max_steps: .*integer, got 1.5"),
        ({"weights": ["influence", "none"]}, "imu.weights: .*got 'none'"),
        ({"weights": Range(low=0, high=1)}, "imu.weights: .*got 0"),
        ({"step": [0.1, 0.2, 0.1]}, r"step has the same choice twice: \[0.1, 0.2, 0.1\]"),
    ],
)
def test_what_the_method_does_not_take_is_refused(given: spaces.Space, message: str) -> None:
    with pytest.raises(params.ParameterError, match=message):
        spaces.distributions(given, IMU)


def test_a_range_of_what_is_true_or_false_is_refused() -> None:
    with pytest.raises(params.ParameterError, match=r"amun\.with_forget: .*boolean, got 0"):
        spaces.distributions({"with_forget": Range(low=0, high=1)}, entries()["amun"])


@pytest.mark.parametrize("fields", [{"low": 1}, {"low": 1, "high": "2"}, {"low": 2, "high": 2}])
def test_a_range_of_the_form_is_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Range(**fields)


def test_without_a_space_the_method_says_what_is_searched() -> None:
    asked = understood(REPOSITORY, Method.imu, {}, {"weights": "permuted"}, {})
    assert asked.space == {"step": [0.05, 0.1, 0.25, 0.5, 1.0]}
    assert asked.present == {"step": params.section(REPOSITORY, "unlearn.imu.step")}
    assert asked.entry["weights"] == "permuted"
    settings = {"unlearn.imu.step": 0.7}
    assert understood(REPOSITORY, Method.imu, {}, {}, settings).present == {"step": 0.7}
    for method, given, parameters, message in (
        (Method.logit_mask, {}, {}, "logit_mask.py has no SEARCH"),
        (Method.imu, SPACE, {"step": 0.2}, "'step' is given in parameters as well"),
        (Method.imu, {}, {"step": 0.2}, "parameters are given for all"),
        (Method.imu, {}, {"steps": 1}, "imu has no 'steps'"),
        (Method.imu, {}, {"weights": "none"}, r"imu\.weights: .*got 'none'"),
    ):
        with pytest.raises(params.ParameterError, match=message):
            understood(REPOSITORY, method, given, parameters, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": ["8"]}, "classes must not have '8': split.by_class.classes has it"),
        ({"settings": {"split.by_class.classes": ["3"]}}, "classes must not have '3'"),
        ({"classes": ["1", "1"]}, "classes name '1' twice"),
        ({"classes": []}, "classes must name at least one"),
        ({"scenarios": ["class", "class"]}, "scenarios name 'class' twice"),
        ({"scenarios": ["ids"]}, "scenarios must be of class, fraction, group, got 'ids'"),
        ({"settings": {"split.seed": 0}}, "settings must not have 'split.seed'"),
        ({"settings": {"split.scenario": "ids"}}, "class, fraction, group, got 'ids"),
        ({"settings": {"data.seed": 3}, "draws": [1]}, "settings must not have 'data.seed'"),
        ({"draws": [0, 1]}, "draws must not have 0: data.seed has it"),
        ({"draws": [1, 1]}, "draws name 1 twice"),
        ({"settings": {"train.epoch": 1}}, "no 'train.epoch' to change"),
        ({"settings": {"original.retrain": False}}, "original.retrain must be true"),
    ],
)
def test_cells_that_cannot_judge_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(params.ParameterError, match=message):
        tuning.tuning_cells(REPOSITORY, **given)


def test_every_class_has_a_seed_of_its_own_and_settings_are_in_every_cell() -> None:
    settings = {"train.epochs": 2, "unlearn.imu.step": 0.5}
    cells = tuning.tuning_cells(REPOSITORY, ["class"], ["2", "4"], settings)
    said = [params.changed(params.read(REPOSITORY), cell.changes) for cell in cells]
    assert [tuning.label(cell) for cell in cells] == ["class/100", "class/101"]
    assert [(c["seed"], c["split"]["by_class"]["classes"]) for c in said] == [
        (100, ["2"]),
        (101, ["4"]),
    ]
    assert [content["train"]["epochs"] for content in said] == [2, 2]
    assert said[0]["unlearn"].keys() == {"nothing", "logit_mask"}
    # What is tried is no part of a cell, which is prepared once for all searches.
    del settings["unlearn.imu.step"]
    assert cells == tuning.tuning_cells(REPOSITORY, ["class"], ["2", "4"], settings)


def test_drawn_data_are_drawn_anew_for_every_seed() -> None:
    settings = {"split.dataset": "biographies", "split.scenario": "fraction"}
    cells = tuning.tuning_cells(REPOSITORY, classes=["1", "2"], settings=settings, draws=[1, 2])
    labels = ["fraction/100/1", "fraction/101/1", "fraction/100/2", "fraction/101/2"]
    assert [tuning.label(cell) for cell in cells] == labels
    assert [cell.changes["data.seed"] for cell in cells] == [1, 1, 2, 2]
    assert len({cell.name for cell in cells}) == 4


def test_the_search_finds_the_bottom_and_keeps_failures_with_their_reason(tmp_path: Path) -> None:
    bowl, batches = Bowl(), []
    found = study(tmp_path)
    found.begin_with({"step": 0.25})
    found.run(bowl, 30, 4, lambda: batches.append(len(found.told())))
    told = found.told()
    assert batches == [4, 8, 12, 16, 20, 24, 28, 30]
    assert told[0].candidate == {"step": 0.25}
    assert found.outcome({"step": 0.25}, bowl).gap == pytest.approx((0.05 + 1) / 2)
    assert min(abs(trial.candidate["step"] - 0.3) for trial in told) < 0.02
    assert len({*bowl.judged}) == 30
    failed = [trial.outcome for trial in told if trial.candidate["step"] > 0.8]
    assert failed == [TOO_FAR] * len(failed)
    assert failed
    assert (failed[0].gap, failed[0].failure) == (None, "a: too far")


def test_a_search_that_was_stopped_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    whole, first, second = Bowl(), Bowl(stop_after=9), Bowl()
    study(tmp_path / "whole").run(whole, 16, 4, lambda: None)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "part").run(first, 16, 4, lambda: None)
    kept = study(tmp_path / "part").told()
    assert [trial.candidate["step"] for trial in kept] == first.judged
    study(tmp_path / "part").run(second, 16, 4, lambda: None)
    assert first.judged + second.judged == whole.judged
    assert study(tmp_path / "part").told()[:8] == kept
    study(tmp_path / "part").run(second, 16, 4, lambda: None)
    assert len(second.judged) == 8
    study(tmp_path / "part").run(second, 18, 4, lambda: None)
    assert len(second.judged) == 10


def test_what_was_asked_for_when_a_stop_came_is_tried_first(tmp_path: Path) -> None:
    bowl, found = Bowl(), study(tmp_path)
    tell, told = found._tell, []

    def told_twice(*given: Any) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt
        told.append(tell(*given))

    found._tell = told_twice  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        found.run(bowl, 8, 4, lambda: None)
    first, bowl.judged = bowl.judged, []
    study(tmp_path).run(bowl, 8, 4, lambda: None)
    assert bowl.judged[:2] == first[2:]
    assert len(bowl.judged) == 6


def test_another_key_is_another_study(tmp_path: Path) -> None:
    study(tmp_path).run(Bowl(), 4, 4, lambda: None)
    other = Study(tmp_path / "study.db", "other", spaces.distributions(SPACE, IMU), seed=0)
    assert other.told() == []


def test_a_setting_that_is_no_trial_is_judged_once_and_stays_none(tmp_path: Path) -> None:
    bowl = Bowl()
    assert not spaces.inside(SPACE, {"step": 2.0})
    for _ in range(2):
        assert study(tmp_path).outcome({"step": 2.0}, bowl).failure == "a: too far"
    assert bowl.judged == [2.0]
    assert study(tmp_path).told() == []
    study(tmp_path).run(bowl, 2, 2, lambda: None)
    study(tmp_path).begin_with({"step": 0.25})  # put into params.yaml after the search
    study(tmp_path).run(bowl, 2, 2, lambda: None)
    assert len(bowl.judged) == 3
    assert study(tmp_path).outcome({"step": 0.25}, bowl).gap == pytest.approx((0.05 + 1) / 2)


def test_a_small_space_is_tried_whole_and_each_candidate_once(tmp_path: Path) -> None:
    bowl, given = Bowl(), {"step": [0.1, 0.2, 0.3], "max_steps": Range(low=5, high=6)}
    found = study(tmp_path, given)
    present = {"step": 0.3, "max_steps": 5}
    assert spaces.inside(given, present)
    found.begin_with(present)
    found.run(bowl, 20, 4, lambda: None)
    assert sorted(bowl.judged) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert found.told()[0].candidate == present


def test_a_candidate_that_is_asked_for_again_keeps_what_came_out(tmp_path: Path) -> None:
    bowl, given = Bowl(), {"step": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    found = study(tmp_path, given)
    found.run(bowl, 5, 1, lambda: None)
    told = [trial.candidate["step"] for trial in found.told()]
    assert len({*told}) < len(told) == 5
    assert len({*bowl.judged}) == len(bowl.judged)
    found.run(bowl, 6, 5, lambda: None)
    assert sorted(bowl.judged) == given["step"]


def test_the_edges_of_a_space_are_told() -> None:
    given: spaces.Space = {
        "a": Range(low=1e-4, high=1.0, log=True),
        "b": Range(low=0, high=100),
        "c": [1, 3, 2],
        "d": [0.3, 0.5],
        "e": [True, False, "x"],
    }
    rest = {"d": 0.3, "e": True}
    assert spaces.edges(given, {"a": 1.4e-4, "b": 50, "c": 3} | rest) == {
        "a": "lower",
        "c": "upper",
    }
    assert spaces.edges(given, {"a": 0.03, "b": 96, "c": 1} | rest) == {"b": "upper", "c": "lower"}
    assert spaces.edges(given, {"a": 2e-4, "b": 6, "c": 2} | rest) == {}


def trial(number: int, step: float, gap: float | None) -> dict[str, Any]:
    failure = "" if gap is not None else "class/100: it diverged"
    gaps = {"class/100": gap, "fraction/100": gap}
    return {
        "number": number,
        "candidate": {"step": step},
        "gap": gap,
        "gaps": gaps,
        "failure": failure,
    }


def test_each_trial_is_logged_once_and_a_failed_one_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("split: {dataset: digits}")
    workspace = Workspace(tmp_path)
    group = Group(workspace, "x", {}, "key")
    group.log_trials([trial(0, 0.25, 3.0)])
    group.end("FAILED", [])
    again = Group(workspace, "x", {}, "key")
    assert again.run == group.run
    assert Group(workspace, "x", {}, "other").run != group.run
    again.log_trials([trial(0, 0.25, 3.0), trial(2, 1.0, None)])
    assert again.store.client.get_run(group.run).info.status == "RUNNING"
    failed, done = again.store.search("tags.`imu.kind` = 'trial'")
    assert (done.info.run_name, done.info.status) == ("trial 0", "FINISHED")
    assert done.data.params == {"step": "0.25"}
    assert done.data.metrics == {"gap": 3.0, "gap/class/100": 3.0, "gap/fraction/100": 3.0}
    assert (failed.info.run_name, failed.info.status) == ("trial 2", "FAILED")
    assert failed.data.tags["reason"] == "class/100: it diverged"
    assert failed.data.metrics == {}


def searched(present: dict[str, Any], *trials: dict[str, Any]) -> search_page.Searched:
    return search_page.Searched(
        name="x",
        entry_name="imu",
        entry=IMU,
        space={"step": "0.01 to 1.0, log"},
        cells={"class/100": "class 1", "fraction/100": "10 %"},
        trials=trials,
        present=present,
        edges={"step": "upper"},
        importances={},
    )


def test_the_page_says_what_is_best_and_what_stands_in_params_yaml() -> None:
    now = trial(0, 0.25, 3.0)
    found = searched(now, now, trial(1, 0.97, 2.5), trial(2, 1.0, None))
    page = search_page.page(found, "a test")
    assert "Trial 1, `step 0.97`: gap 2.50.\n" in page
    assert "now, `step 0.25`: gap 3.00.\n" in page
    assert "`step` lies at the upper edge" in page
    assert "- trial 2: class/100: it diverged\n" in page
    lines = page.partition("For `params.yaml`:\n\n")[2].partition("\n\n")[0]
    assert YAML(typ="safe").load(lines) == {"unlearn": {"imu": {**IMU, "step": 0.97}}}
    rows = [text for text in page.splitlines() if text.startswith("| ")][2:]
    assert rows == [
        "| 1 | 0.97 | 2.5 | 2.5 | 2.5 |",
        "| 0 | 0.25 | 3 | 3 | 3 |",
        "| 2 | 1 | failed | failed | failed |",
    ]
    assert search_page.table(found)["failure"].tolist() == ["", "", "class/100: it diverged"]
    worse = search_page.page(searched(trial(0, 0.25, 2.0), trial(1, 0.97, 2.5)), "a test")
    assert "No candidate is better" in worse
    assert "For `params.yaml`" not in worse
    none = search_page.page(searched(now, trial(2, 1.0, None)), "a test")
    assert "Every candidate failed." in none


def test_another_space_or_other_code_is_another_study(workspace: Path) -> None:
    cells = tuning.tuning_cells(workspace, ["class"], ["1"])

    def key(space: spaces.Space, seed: int = 0) -> str:
        asked = understood(workspace, Method.imu, space, {}, {})
        return identity(workspace, "x", asked, cells, seed)

    first = key(SPACE)
    assert key(SPACE) == first
    assert key(SPACE, seed=1) != first
    assert key({"step": Range(low=0.01, high=0.9, log=True)}) != first
    # A best candidate that is put into params.yaml does not begin another one.
    change(workspace, {"unlearn": {"imu": {"step": 0.3}}})
    assert understood(workspace, Method.imu, SPACE, {}, {}).present == {"step": 0.3}
    assert key(SPACE) == first
    code = workspace / "imu" / "methods" / "imu.py"
    code.write_text(code.read_text() + "\n")
    assert key(SPACE) != first


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_leaves_a_page_and_runs_in_mlflow(
    tmp_path: Path, served: None
) -> None:
    root = make_workspace(tmp_path / "workspace")
    keep(root, {"retrain": ("reference",)})
    call = ["python", "-m", "flows.search", "trial", "--method", "imu", "--at-once", "1"]
    call += ["--space", "step=0.05..1:log", "--scenarios", "class", "--classes", "1"]
    first = started(root, *call, "--trials", "40", until="'trial' - {\"step\": 0.25}: ")
    first.kill()
    first.wait()
    done = study_of(root)
    assert 0 <= len(done) < 5
    second = run(*call, "--trials", "5", cwd=root)
    assert f"{len(done)} trials are known already" in second.stdout
    assert "epoch " not in second.stdout
    tried = study_of(root)
    assert tried[: len(done)] == done
    assert tried[0] == {"step": 0.25}
    judged = second.stdout.count('- {"step": ')
    assert len(tried) == len(done) + judged == 5
    page = (root / ".cells" / "trial-results" / "search.md").read_text()
    assert "now, `step 0.25`: gap " in page
    assert len(pd.read_csv(root / ".cells" / "trial-results" / "search.csv")) == 5
    store = Store(Workspace(root))
    (search,) = store.search("tags.`imu.kind` = 'search'")
    assert search.info.status == "FINISHED"
    logged = {
        run.info.run_name: run.data
        for run in store.search(
            f"tags.`mlflow.parentRunId` = '{search.info.run_id}' AND tags.`imu.kind` = 'trial'"
        )
    }
    assert [data.params["step"] for _, data in sorted(logged.items(), key=number)] == [
        str(candidate["step"]) for candidate in tried
    ]
    assert all({"gap", "gap/class/100"} == data.metrics.keys() for data in logged.values())
    assert not (root / "runs").exists()


def number(item: tuple[str, object]) -> int:
    return int(item[0].removeprefix("trial "))


def study_of(root: Path) -> list[dict[str, Any]]:
    """Candidates that the search on disk has told."""
    with sqlite3.connect(root / ".cells" / "trial-results" / "study.db") as database:
        rows = database.execute(
            "select param_value from trial_params join trials using (trial_id) "
            "where state = 'COMPLETE' order by number"
        )
        return [{"step": value} for (value,) in rows]
