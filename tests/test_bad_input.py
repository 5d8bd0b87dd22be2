"""Every wrong input ends a stage with one clear message, and no traceback."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import change, make_workspace, run, tasks

DEEP = {"method": "imu_deep", "data_access": "forget"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose original model is trained; tests put back what they change."""
    root = make_workspace(tmp_path_factory.mktemp("bad") / "workspace", {"split": {"used": 1.0}})
    for stage in ("split", "train"):
        tasks(root, stage)
    return root


def failing(root: Path, *stage: str) -> str:
    return tasks(root, *stage, status=1)


def test_a_stage_that_fails_ends_as_a_process_with_its_message_alone(shared: Path) -> None:
    done = run("python", "-m", "tasks", "unlearn", "other", cwd=shared, check=False)
    assert done.returncode == 1
    said = "params.yaml: unlearn has no 'other', only nothing, logit_mask, imu\n"
    assert done.stdout == f"unlearn other failed: {said}"


def test_valid_parameters_are_said_to_be(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks(shared, "check") == "parameters are valid\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    change(shared, {"runtime": {"device": "cuda"}})
    try:
        assert "runtime.device is 'cuda', but torch finds no GPU here" in failing(shared, "check")
        assert tasks(shared, "check", "elsewhere") == "parameters are valid\n"
    finally:
        change(shared, {"runtime": {"device": "cpu"}})


@pytest.mark.parametrize("call", ["entries", "data", "split", "unlearn imu", "near x"])
def test_help_is_printed_and_nothing_is_done(tmp_path: Path, call: str) -> None:
    assert "python -m tasks check" in tasks(tmp_path, *call.split(), "--help")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"split": {"tset": 0.2}}, "split", "unknown parameter split.tset; known here: dataset"),
        ({"split": {"test": "0.2"}}, "split", "split.test: Input should be a valid number"),
        ({"split": {"test": 1.5}}, "split", "test must be in (0, 1) or 'published', got 1.5"),
        ({"split": {"dataset": "mnist"}}, "split", "no 'mnist': choose from biographies"),
        ({"split": {"by_class": {"classes": ["x"]}}}, "split", "unknown class 'x', choose from 0"),
        ({"train": {"learning_rate": 1e30}}, "train", "training loss is nan in epoch 1, step"),
        ({"runtime": {"device": "tpu"}}, "train", "device: Input should be 'cpu' or 'cuda'"),
        ({"unlearn": {"imu": {"stpe": 1}}}, "unlearn imu", "unknown parameter unlearn.imu.stpe"),
        ({"unlearn": {"imu": {"method": "x"}}}, "unlearn imu", "has no 'x': choose from amun"),
        (
            {"unlearn": {"imu": {"data_access": "retain"}}},
            "unlearn imu",
            "unlearn.imu.data_access must be 'forget' for the method imu, got 'retain'",
        ),
        (
            {"unlearn": {"fine_tune": {"method": "fine_tune", "data_access": "forget"}}},
            "unlearn fine_tune",
            "unlearn.fine_tune.data_access must be 'retain' for the method fine_tune, got 'forget'",
        ),
        ({}, "unlearn", "the stage unlearn needs an item, as dvc.yaml gives it"),
        ({}, "train x", "the stage train has no items, got 'x'"),
        ({}, "trian", "there is no stage 'trian'"),
        ({}, "rehearse x", "there is no stage 'rehearse'"),
        ({}, "ensemble x", "ensemble.families has no 'x', only nothing"),
        ({}, "near runs/split/request.json", "unknown parameter asked.scenario; known here: model"),
        ({}, "tune runs/split/request.json", "unknown parameter asked.scenario; known here: entry"),
    ],
)
def test_wrong_parameters(shared: Path, changes: dict[str, Any], stage: str, message: str) -> None:
    before = (shared / "params.yaml").read_text()
    try:
        change(shared, changes)
        assert message in failing(shared, *stage.split())
    finally:
        (shared / "params.yaml").write_text(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian": {"epochs": 1}}, "unknown section trian; known are data, ensemble, influence"),
        ({"unlearn": {"imu": {"method": "imuu"}}}, "unlearn.imu.method must be one of amun"),
        ({"split": {"dataset": "mnist"}}, "split.dataset must be one of biographies, cifar10"),
        ({"network": {"name": "vgg"}}, "network.name must be one of causal_lm, custom"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
        ({"seed": 2**64}, "seed: Input should be less than 4294967296, got 18446744073709551616"),
        ({"split": {"seed": 2**32}}, "split: seed must be in [0, 4294967296), got 4294967296"),
        ({"network": {"width": 10**9}}, "network: width must be in [1, 1024], got 1000000000"),
        ({"train": {"epochs": 10**9}}, "train: epochs must be in [1, 100000], got 1000000000"),
        (
            {"unlearn": {"imu": {"max_steps": 10**9}}},
            "unlearn.imu: max_steps must be >= 0 and <= 1000000, got 1000000000",
        ),
        (
            {"split": {"by_class": {"classes": ["8", "3", "8"]}}},
            "split.by_class: classes must name each once, got '8' twice",
        ),
        (
            {"split": {"scenario": "group", "by_group": {"values": []}}},
            "split.by_group.values must name at least one",
        ),
        ({"unlearn": {}}, "unlearn must have at least one entry"),
        ({"snapshots": 1}, "snapshots must be >= 2, got 1"),
        ({"split": {"by_class": {"classes": []}}}, "split.by_class.classes must name at least"),
        (
            {"split": {"scenario": "ids", "by_ids": {"file": "requests/no.csv"}}},
            "split.by_ids.file: there is no requests/no.csv",
        ),
        (
            {"retrain": {"retrain_2": {"seed_offset": 0}}},
            "retrain.retrain_2.seed_offset must differ from",
        ),
        ({"unlearn": {"retrain_2": {"method": "imu"}}}, "unlearn.retrain_2: a name must"),
        ({"unlearn": {"original": {"method": "imu"}}}, "unlearn.original: a name must"),
        ({"unlearn": {"a-b": {"method": "imu"}}}, "unlearn.a-b: a name must"),
        (
            {"retrain": {"retrain_2": {"seed_offset": -1}}},
            "seed_offset must be in [0, 4294967296), got -1",
        ),
        ({"network": {"width": 0}}, "width must be in [1, 1024], got 0"),
        ({"influence": {"damping": 0}}, "damping must be > 0, got 0"),
        ({"seed": "x"}, "seed: Input should be a valid integer, got 'x'"),
        ({"influence": {"parameters": ["nosuch"]}}, "influence.parameters: ResNet has no module"),
        (
            {"unlearn": {"deep": DEEP | {"layers": ["nosuch"]}}},
            "unlearn.deep.layers: ResNet has no module or parameter 'nosuch': choose from stem",
        ),
        (
            {"unlearn": {"deep": DEEP | {"blocks": 99}}},
            "unlearn.deep.blocks must be in [1, 3] where neighbours are moved, as this network has "
            "4 before its head, got 99",
        ),
        ({"unlearn": {"deep": DEEP | {"epochs": 0}}}, "unlearn.deep.epochs must be >= 1, got 0"),
        (
            {"unlearn": {"imu": {"max_steps": 0}}},
            "unlearn.imu.max_steps must be >= 1, got 0: the model would stay as it is",
        ),
    ],
)
def test_all_parameters_are_checked_before_anything_runs(
    shared: Path, changes: dict[str, Any], message: str
) -> None:
    before = (shared / "params.yaml").read_text()
    try:
        change(shared, changes)
        assert message in failing(shared, "check")
    finally:
        (shared / "params.yaml").write_text(before)


@pytest.mark.parametrize(
    ("request_file", "message"),
    [
        ("id\ndigits-9999\n", "1 of 1 ids are not in the data set, the first is 'digits-9999'"),
        ("id\ndigits-0001\ndigits-0001\n", "names 'digits-0001' more than once"),
        ("id\n", "names no id"),
        ("name\nx\n", "has no column 'id'"),
        ("id" + ",a" * 20_000, "it must have at most 1000 columns, got 20001"),
        (f"id\n{'a' * 1000}\n", f"the first is '{'a' * 199}\n"),
        (f"id{'a' * 1000}\n", f"only ['id{'a' * 196}\n"),
        ("id\n" + "".join(f"digits-{i:04d}\n" for i in range(1797)), "whole training set"),
        ("id\n1\n2,3,4\n", "test.csv is not a readable CSV table: "),
        (None, "missing"),
    ],
)
def test_wrong_erasure_requests(shared: Path, request_file: str | None, message: str) -> None:
    before = (shared / "params.yaml").read_text()
    path = shared / "requests" / "test.csv"
    try:
        if request_file is not None:
            path.write_text(request_file)
        change(shared, {"split": {"scenario": "ids", "by_ids": {"file": "requests/test.csv"}}})
        # Without the file DVC could not tell the name of the stage.
        name = "split"
        assert message in failing(shared, name)
    finally:
        (shared / "params.yaml").write_text(before)
        path.unlink(missing_ok=True)


def test_data_that_differ_from_the_pointer(shared: Path) -> None:
    labels = shared / "data" / "digits" / "labels.npy"
    before = labels.read_bytes()
    try:
        labels.chmod(0o644)
        labels.write_bytes(before[:-1] + b"\1")
        assert "data/ differs from what data.dvc records" in failing(shared, "data")
        assert "is not the published data set: SHA-256 is" in failing(shared, "split")
        labels.unlink()
        assert "labels.npy is missing: run `make data` or `dvc pull`" in failing(shared, "split")
    finally:
        labels.write_bytes(before)
    tasks(shared, "data")


def test_data_that_dvc_took_for_new_are_refused_and_can_be_restored(shared: Path) -> None:
    labels = shared / "data" / "digits" / "labels.npy"
    before = labels.read_bytes()
    labels.chmod(0o644)
    labels.write_bytes(before[:-1] + b"\1")
    assert run("dvc", "repro", "split", cwd=shared, check=False).returncode != 0
    message = failing(shared, "data")
    remedy = "git checkout data.dvc && dvc checkout -f data.dvc"
    assert f"restore it with `{remedy}`" in message
    run("bash", "-c", remedy, cwd=shared)
    assert labels.read_bytes() == before
    # The failed stage's old outputs are gone; the other tests work on them.
    for call in ("data", "split"):
        tasks(shared, call)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no safetensors"])
def test_a_damaged_checkpoint(shared: Path, damage: str) -> None:
    model = shared / "runs" / "train" / "model.safetensors"
    before = model.read_bytes()
    try:
        if damage == "missing":
            model.unlink()
        else:
            model.write_bytes(before[: len(before) // 2] if damage == "truncated" else b"x" * 99)
        message = failing(shared, "influence")
        assert "model.safetensors is" in message
        assert "`dvc checkout` or `dvc repro`" in message
    finally:
        model.write_bytes(before)


def test_data_that_changed_after_the_split(shared: Path) -> None:
    manifest = shared / "runs" / "split" / "train.csv"
    before = manifest.read_text()
    try:
        lines = before.splitlines()
        lines[1] = lines[1][:-4] + "0000"
        manifest.write_text("\n".join(lines) + "\n")
        assert "the data changed after the split" in failing(shared, "train")
    finally:
        manifest.write_text(before)
