"""A method that diverges or gives up is a row that says so; the others are judged as ever."""

import json
from pathlib import Path

import pandas as pd
import pytest

from imu.methods import UnlearningError, fine_tune
from tasks import report, unlearn
from tasks.files import artifacts, unlearned
from tasks.files.workspace import Workspace
from tasks.tracking.record import record
from tasks.tracking.store import Store
from tests.conftest import keep, make_workspace, run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After ``dvc repro`` with a learning rate at which fine-tuning diverges."""
    root = make_workspace(tmp_path_factory.mktemp("failed") / "workspace")
    keep(root, {"retrain": ("reference", "retrain_2"), "unlearn": ("nothing", "imu")})
    content = (root / "params.yaml").read_text()
    diverging = (
        "unlearn:\n  diverging: {method: fine_tune, data_access: retain, sgd: "
        "{learning_rate: 1e30, epochs: 1, batch_size: 64, momentum: 0.9, "
        "weight_decay: 0.0, stop_at_target: false}}\n"
    )
    (root / "params.yaml").write_text(content.replace("unlearn:\n", diverging))
    run("dvc", "repro", "-q", cwd=root)
    return root


def test_its_course_and_the_reason_stay_and_there_is_no_model(ran: Path) -> None:
    out = ran / "runs" / "unlearn" / "diverging"
    assert json.loads((out / "metrics.json").read_text())["failed"] == 1.0
    assert pd.read_csv(out / "curve.csv")["step"].tolist()[0] == 0
    tensors, about = artifacts.read_tensors(out / "model.safetensors")
    assert tensors == {}
    assert about["failure"].startswith("fine_tune: ")


def test_it_is_not_judged_and_the_others_are(ran: Path) -> None:
    workspace = Workspace(ran)
    said = report.read_verdicts(workspace)
    assert said["diverging"]["outcome"] == "failed"
    assert said["diverging"]["decided"][0].startswith("fine_tune: ")
    assert said["imu"]["outcome"] != "failed"
    table = pd.read_csv(workspace.runs / "report" / "table.csv").set_index("model")
    assert pd.isna(table.loc["diverging", "FA"])
    assert table.drop(index="diverging")[["FA", "RA", "TV"]].notna().all(axis=None)
    page = (workspace.runs / "report" / "report.html").read_text()
    assert '<span class="badge failed">failed: it left no model</span>' in page


def test_mlflow_has_the_reason(ran: Path) -> None:
    (found,) = Store(Workspace(ran)).search("tags.model = 'diverging'")
    assert found.data.params["failure"].startswith("fine_tune: ")
    assert found.data.tags["verdict"] == "failed"
    assert found.data.tags["verdict.words"] == "failed: it left no model"


def test_a_method_that_gives_up_before_its_first_step_leaves_no_model(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(*_: object, **__: object) -> object:
        raise UnlearningError("nothing near")
        yield

    monkeypatch.setattr(fine_tune, "unlearn", gives_up)
    workspace = Workspace(ran)
    unlearn.run(workspace, "diverging")
    assert unlearned.why_failed(workspace, "diverging") == "nothing near"
    found = record(workspace, "unlearn", "diverging")
    assert found.model is None
    assert found.metrics["steps"] == 0
    assert found.curves == {"forget_loss": [], "forget_accuracy": [], "forget_margin": []}
