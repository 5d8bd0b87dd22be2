"""A network, weights and images of the user's own; nothing is retrained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from imu.datasets import image_table
from tasks.files import params
from tasks.graph.stages import changed_stages
from tests.conftest import make_workspace, run

CODE = """
from torch import nn

class Lines(nn.Module):
    def forward(self, images):
        return images.view(len(images), -1)  # fails in another order of memory

def flat(width):
    head = nn.Linear(width, 2)  # defined first
    return nn.Sequential(Lines(), nn.Linear(3 * 8 * 8, width), nn.ReLU(), head)
"""
CHANGES = {
    "data": {"path": "images.csv", "size": 8},
    "split": {
        "dataset": "image_table",
        "test": "published",
        "validation_from": "test",
        "validation": 0.15,
        "scenario": "subject",
        "by_subject": {"subjects": ["p1", "p3"]},
    },
    "original": {"checkpoint": "own/mine.pt", "retrain": False},
}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after ``dvc repro``, from a table of images, a module and a file of weights."""
    root = make_workspace(tmp_path_factory.mktemp("own") / "workspace")
    draw, rows = np.random.default_rng(0), []
    for n in range(120):
        label, part = ("dark", "light")[n % 2], "test" if n >= 60 else "train"
        pixels = draw.integers(0, 120, (8, 8, 3)) + 120 * (n % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{n}.png")
        rows.append((f"{n}.png", label, part, f"p{n // 2 % 6}"))
    columns = ["path", "label", "part", "subject"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "images.csv", index=False)
    (root / "own" / "nets.py").write_text(CODE)
    torch.save({"state_dict": network().state_dict()}, root / "own" / "mine.pt")
    own = {"name": "custom", "factory": "own.nets:flat", "arguments": {"width": 6}, "head": ""}
    replace_section(root, CHANGES | {"network": own})
    assert run("python", "-m", "tasks", "data", cwd=root, check=False).returncode == 1
    run("dvc", "add", "-q", "data", cwd=root)
    run("dvc", "repro", "-q", cwd=root)
    return root


def replace_section(root: Path, changes: dict[str, Any]) -> None:
    from ruamel.yaml import YAML

    content = params.read(root)
    for section, values in changes.items():
        merged = values if section == "network" else {**content[section], **values}
        content[section] = merged
    with (root / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)


def metrics(root: Path, item: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        (root / "runs" / "evaluate" / "unlearn" / item / "metrics.json").read_text()
    )
    return found


def test_the_weights_are_those_of_the_file(ran: Path) -> None:
    stored = torch.load(ran / "own" / "mine.pt", weights_only=True)["state_dict"]
    for model in ("train", "unlearn/nothing"):
        tensors = torch_tensors(ran / "runs" / model / "model.safetensors")
        assert tensors.keys() == stored.keys()
        assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    assert json.loads((ran / "runs" / "train" / "metrics.json").read_text())["flops"] == 0


def test_the_weights_are_tried_on_the_data_at_once(ran: Path) -> None:
    said = run("python", "-m", "tasks", "train", cwd=ran).stdout
    assert "weights of own/mine.pt; not trained\nright on " in said
    assert "\nclasses in this order: 0 'dark', 1 'light'\n" in said


def torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_all_samples_of_the_subjects_are_forgotten_and_no_others(ran: Path) -> None:
    data = image_table.load(ran / "data" / "image_table")
    manifests = {
        name: pd.read_csv(ran / "runs" / "split" / f"{name}.csv")
        for name in ("forget", "retain", "validation", "test")
    }
    subjects = {
        name: set(data.attributes["subject"][rows["index"]]) for name, rows in manifests.items()
    }
    assert subjects["forget"] == {"p1", "p3"}
    assert not subjects["retain"] & {"p1", "p3"}
    assert not (subjects["test"] | subjects["validation"]) & {"p1", "p3"}
    assert data.published_test is not None
    assert data.published_test[manifests["validation"]["index"]].all()


def test_what_needs_a_reference_is_absent_and_said_to_be(ran: Path) -> None:
    found = metrics(ran, "imu")
    assert {"FA", "RA", "TA", "probe_1", "relearn_auc", "JSD_unseen"} <= found.keys()
    assert not {"gap", "TV", "KL", "ToW", "RTE_work", "U_LiRA"} & found.keys()
    report = (ran / "runs" / "report" / "report.html").read_text()
    assert "Nothing was retrained" in report
    verdicts = json.loads((ran / "runs" / "report" / "verdicts.json").read_text())
    outcomes = {model: verdict["outcome"] for model, verdict in verdicts.items()}
    # Of samples a mask on classes leaves the weights as they were.
    assert outcomes.pop("logit_mask") == "unchanged"
    assert outcomes == dict.fromkeys(outcomes, "not judged")
    assert outcomes.keys() >= {"nothing", "imu"}
    assert json.loads((ran / "runs/retrain/reference/metrics.json").read_text()) == {}


def test_the_pipeline_run_in_mlflow_says_so_too(ran: Path) -> None:
    found = run("python", "-m", "tasks", "show", cwd=ran).stdout
    assert "not judged" in found
    assert "JSD_unseen" in found


def test_data_made_from_elsewhere_are_not_split(ran: Path) -> None:
    before = (ran / "params.yaml").read_text()
    try:
        replace_section(ran, {"data": {"size": 16}})
        assert "split" in stale(ran)
        done = run("python", "-m", "tasks", "split", cwd=ran, check=False)
    finally:
        (ran / "params.yaml").write_text(before)
    assert done.returncode == 1
    assert "was made from data.size 8, but params.yaml has data.size 16" in done.stdout


def test_pixels_are_normalised_as_the_weights_expect(ran: Path) -> None:
    from tasks.files.workspace import Workspace

    before = (ran / "params.yaml").read_text()
    own = Workspace(ran).dataset()
    try:
        replace_section(ran, {"pixels": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}})
        given = Workspace(ran).dataset()
        assert {"train", "evaluate@imu"} <= stale(ran)
        replace_section(ran, {"pixels": {"mean": [0.1], "std": [0.5]}})
        with pytest.raises(ValueError, match="mean must have one number for each of 3 channels"):
            Workspace(ran).dataset()
    finally:
        (ran / "params.yaml").write_text(before)
    assert given.mean == (0.1, 0.2, 0.3) != own.mean
    assert np.array_equal(given.images, own.images)


def stale(root: Path) -> set[str]:
    """Stages that ``dvc repro`` would run again first."""
    return changed_stages(root)


def test_stages_see_that_code_of_the_user_changed(ran: Path) -> None:
    assert stale(ran) == set()
    try:
        (ran / "own" / "nets.py").write_text(CODE + "# changed\n")
        assert {"train", "retrain@reference", "unlearn@imu"} <= stale(ran)
        done = run("python", "-m", "tasks", "unlearn", "nothing", cwd=ran, check=False)
    finally:
        (ran / "own" / "nets.py").write_text(CODE)
    assert done.returncode == 1
    assert "the code of own.nets:flat changed after; run `dvc repro -f`" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"original": {"checkpoint": "own/no.pt"}}, "original.checkpoint: there is no file own/no"),
        ({"original": {"checkpoint": "/x/mine.pt"}}, "checkpoint must be a file in own/, got '/x"),
        ({"original": {"checkpoint": "own/../a.pt"}}, "checkpoint must be a file in own/, got"),
        ({"network": {"name": "custom", "factory": "elsewhere:flat"}}, "elsewhere.py must lie in"),
        (
            {"network": {"name": "custom", "factory": "os:system"}},
            "the module os is neither in own/",
        ),
        ({"network": {"name": "custom", "factory": "own.nowhere:flat"}}, "no module 'own.nowhere'"),
        ({"pixels": {"mean": [0.5]}}, "pixels: mean and std must be of one length"),
        ({"pixels": {"mean": [0.5], "std": [0]}}, "pixels: std must be > 0"),
        ({"split": {"dataset": "nosuch"}}, "split.dataset must be one of biographies, cifar10"),
        ({"runtime": {"processes": 3}}, "batch_size (32) must be divisible by runtime.processes"),
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(
    ran: Path, changes: dict[str, Any], message: str
) -> None:
    before = (ran / "params.yaml").read_text()
    try:
        (ran / "elsewhere.py").write_text(CODE)
        (ran / "own" / "packages.py").write_text("ALLOWED = ['elsewhere']")
        replace_section(ran, changes)
        done = run("python", "-m", "tasks", "check", cwd=ran, check=False)
    finally:
        (ran / "params.yaml").write_text(before)
        (ran / "elsewhere.py").unlink()
        (ran / "own" / "packages.py").unlink()
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


# In a process of its own: MLflow keeps the address of its store in the environment.
SERVED = """
from pathlib import Path

import mlflow
import numpy as np

from tasks.tracking.store import Store
from tasks.files.workspace import Workspace

store = Store(Workspace(Path.cwd()))
(run,) = store.search("tags.model = 'imu'")
(logged,) = run.outputs.model_outputs
mlflow.set_tracking_uri(store.uri)
served = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
print("served", served.predict(np.zeros((2, 3, 8, 8), dtype=np.uint8)).round(6).tolist())
"""


def test_the_model_can_be_served(ran: Path) -> None:
    from tasks.files.workspace import Workspace

    done = run("python", "-c", SERVED, cwd=ran).stdout
    found = json.loads(next(x for x in done.splitlines() if x.startswith("served"))[7:])
    model = network().eval()
    model.load_state_dict(torch_tensors(ran / "runs" / "unlearn" / "imu" / "model.safetensors"))
    data = Workspace(ran).dataset()
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    images = black[None, :, None, None].expand(2, 3, 8, 8)
    with torch.no_grad():
        assert np.allclose(found, model(images).softmax(1), atol=1e-5)


def test_mlflow_does_not_say_that_given_weights_were_trained(ran: Path) -> None:
    from tasks.files.workspace import Workspace
    from tasks.tracking.record import record

    logged = record(Workspace(ran), "train", None).params
    assert logged["original"] == {"checkpoint": "own/mine.pt", "retrain": False}
    assert "train" not in logged


def test_weights_that_do_not_fit_are_refused(ran: Path) -> None:
    weights = (ran / "own" / "mine.pt").read_bytes()
    try:
        torch.save(nn.Linear(3, 2).state_dict(), ran / "own" / "mine.pt")
        done = run("python", "-m", "tasks", "train", cwd=ran, check=False)
    finally:
        (ran / "own" / "mine.pt").write_bytes(weights)
    assert done.returncode == 1
    assert "does not fit Sequential: 4 missing" in done.stdout
    assert "Traceback" not in done.stdout
