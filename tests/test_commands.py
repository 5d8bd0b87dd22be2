"""What reaches a command line or a path through dvc.yaml: names, and nothing that a shell runs."""

import re

import pytest
from ruamel.yaml import YAML

from tasks.files.params import ParameterError, item_of
from tasks.graph.lock import called
from tasks.graph.stages import stages
from tests.conftest import REPOSITORY

GRAPH = (REPOSITORY / "dvc.yaml").read_text()


def test_no_command_holds_what_params_yaml_says() -> None:
    """DVC hands them to a shell, also under plain ``dvc repro``, which checks nothing before."""
    for name, stage in YAML(typ="safe").load(GRAPH)["stages"].items():
        assert "${" not in stage.get("do", stage)["cmd"], name


def test_all_that_dvc_takes_from_params_yaml_is_checked_to_be_harmless() -> None:
    assert set(re.findall(r"\$\{([\w.]+)\}", GRAPH)) == {
        *("retrain", "unlearn", "ensemble.families", "ensemble.judged"),
        *("key", "item.method", "item.data_access", "item.manifest"),
        *("split.dataset", "network.name", "ensemble.network.name"),
        *("split.by_ids.file", "split.forgotten_before"),
        "runtime.device",  # in meta alone
    }, "see params.require_safe"


def test_a_stage_that_is_named_by_dvc_is_the_item_of_its_command() -> None:
    found = {name: (stage.stage, stage.item) for name, stage in stages(REPOSITORY).items()}
    assert found["split"] == ("split", None)
    assert found["unlearn@imu"] == ("unlearn", "imu")
    assert found["evaluate@imu"] == ("evaluate", "unlearn/imu")
    assert found["evaluate_retrain@reference"] == ("evaluate", "retrain/reference")
    assert called("unlearn@imu", "exec python -m tasks unlearn imu") == ("unlearn", "imu")


@pytest.mark.parametrize("word", ["retrain@x$(y)", "unlearn/evaluate@../x", "../x", "a@", "@", ""])
def test_an_item_that_is_no_name_is_refused(word: str) -> None:
    with pytest.raises(ParameterError, match="a name must consist of letters"):
        item_of(word)
