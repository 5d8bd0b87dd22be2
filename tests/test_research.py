"""Ideas and where they are tried: ``docs/research.yaml``."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from research import trials as research
from tasks import unlearn
from tasks.files import params
from tests.conftest import REPOSITORY

TRIALS = {"digits": {"scenarios": ["class"]}}
IDEAS = {"mine": {"why": "it is mine", "entry": "imu"}}


def write(folder: Path, **content: Any) -> Path:
    (folder / "docs").mkdir()
    shutil.copy(REPOSITORY / params.FILE, folder)
    with (folder / research.IDEAS).open("w") as file:
        YAML(typ="safe").dump({"trials": TRIALS, "ideas": IDEAS, "conclusions": []} | content, file)
    return folder


def test_the_shipped_ideas_are_entries_that_differ_from_each_other():
    ideas = research.read(REPOSITORY).ideas
    made = [idea.of_unlearn(name) for name, idea in ideas.items()]
    assert all(made.count(entry) == 1 for entry in made)
    assert ideas["slow"].of_unlearn("") == ideas["imu_deep"].of_unlearn("") | {
        "learning_rate": 0.001
    }
    assert ideas["imu_deep_now"].of_unlearn("") == unlearn.entries()["imu_deep"]


def test_the_shipped_trials_forget_no_reported_class_and_have_the_ideas_of_their_scenario():
    plan = research.read(REPOSITORY)
    for trial in plan.trials.values():
        cells = research.cells_of(REPOSITORY, plan, trial)
        assert [*cells] == list(trial.scenarios)
        for scenario, of_scenario in cells.items():
            assert len(of_scenario) == len(trial.classes)
            for cell in of_scenario:
                assert cell.changes["split.scenario"] == scenario
                asked = {name for name, i in plan.ideas.items() if scenario in i.scenarios}
                asked &= {*(trial.ideas or asked)}
                assert cell.changes["unlearn"].keys() == asked | {"nothing", "logit_mask"}
    deep = research.cells_of(REPOSITORY, plan, plan.trials["cifar10-deep"])["fraction"][0]
    assert deep.changes["network"] == {"name": "resnet_small", "width": 16}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ideas": {"mine": "imu"}}, "docs/research.yaml: ideas.mine: .*got 'imu'"),
        ({"ideas": {"mine": {"entry": "imu"}}}, "docs/research.yaml: ideas.mine.why is missing"),
        (
            {"ideas": {"mine": IDEAS["mine"] | {"how": 1}}},
            "docs/research.yaml: unknown parameter ideas.mine.how; known here: why, entry",
        ),
        ({"ideas": {}}, "docs/research.yaml: ideas must be a mapping, got {}"),
        ({"trials": None}, "docs/research.yaml: trials must be a mapping, got None"),
        (
            {"trials": {"digits": {"scenarios": ["ids"]}}},
            "trials.digits.scenarios.0: .*'class' or 'fraction', got 'ids'",
        ),
        (
            {"trials": {"digits": {"scenarios": ["class"], "ideas": ["theirs"]}}},
            "trials.digits.ideas must be of mine, got 'theirs'",
        ),
        ({"trials": {"digits": {"scenarios": []}}}, "scenarios must name at least one"),
        ({"tests": {}}, "must have trials, ideas and conclusions, got 'tests'"),
        ({"conclusions": "So."}, "conclusions must be a list of paragraphs, got 'So.'"),
        ({"conclusions": [1]}, r"conclusions must be a list of paragraphs, got \[1\]"),
    ],
)
def test_what_is_not_allowed_in_the_file_is_refused(tmp_path, content, message):
    with pytest.raises(params.ParameterError, match=message):
        research.read(write(tmp_path, **content))


@pytest.mark.parametrize(
    ("idea", "message"),
    [
        ({"entry": "amnesia"}, r"ideas\.mine\.entry must be one of .*imu_deep.*got 'amnesia'"),
        ({"entry": "imu", "changes": {"speed": 1}}, "has no 'speed' to change"),
    ],
)
def test_an_idea_that_makes_no_entry_is_refused(tmp_path, idea, message):
    plan = research.read(write(tmp_path, ideas={"mine": {"why": "", **idea}}))
    with pytest.raises(params.ParameterError, match=message):
        research.cells_of(tmp_path, plan, plan.trials["digits"])


def test_a_trial_that_is_not_in_the_file_is_refused(tmp_path):
    with pytest.raises(params.ParameterError, match=re.escape("of digits, got 'mars'")):
        research.research(write(tmp_path), 1, ["mars"])
