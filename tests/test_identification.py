"""People through the same graph, commands and pages as images: a few small figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imu import serving
from imu.datasets import Source, identities
from imu.metrics import about
from imu.rehearsal import few
from tasks import check, evaluate, influence, report, retrain, split, train, unlearn
from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.tracking.record import record
from tests.conftest import REPOSITORY, change, keep

PEOPLE = Source(people=8)
CHANGES = {
    "data": {"people": 8},
    "split": {
        "dataset": "identities",
        "test": "published",
        "validation_from": "published",
        "scenario": "subject",
        "by_subject": {"subjects": ["0002"]},
    },
    "network": {"name": "resnet_small", "width": 4},
    "train": {"epochs": 4, "batch_size": 16},
    "unlearn": {"gradient_ascent_head": {"sgd": {"epochs": 2}}},
}
MODELS = ("nothing", "logit_mask", "imu")
RETRAINED = ("reference", "retrain_2")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("identification")
    for name in ("params.yaml", "requests/forgotten.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(REPOSITORY / name, root / name)
    keep(root, {"retrain": RETRAINED, "unlearn": (*MODELS, "gradient_ascent_head")})
    change(root, CHANGES)
    # The same method, on all layers: what is used moves.
    moved = {"parameters": "all", "sgd": {"learning_rate": 0.05}}
    change(root, {"unlearn": {"gradient_ascent_head": moved}})
    identities.write(root / "data" / "identities", PEOPLE)
    workspace = Workspace(root)
    check.everything(workspace)
    split.run(workspace, None)
    train.run(workspace, None)
    for item in RETRAINED:
        retrain.run(workspace, item)
    influence.run(workspace, None)
    entries = (*MODELS, "gradient_ascent_head")
    for item in entries:
        unlearn.run(workspace, item)
    for item in (*(f"retrain/{n}" for n in RETRAINED), *(f"unlearn/{n}" for n in entries)):
        evaluate.run(workspace, item)
    report.run(workspace, None)
    return root


def test_a_person_is_forgotten_whole_and_judged_by_what_was_held_out(ran: Path) -> None:
    workspace = Workspace(ran)
    request = workspace.read_request()
    assert request["forget_classes"] == [1]
    assert request["requested"]["test"] == request["requested"]["validation"] == 0
    sets = {name: workspace.read_manifest(name) for name in ("forget", "retain", "test")}
    assert set(sets["forget"]["label"]) == {1}
    assert set(sets["retain"]["label"]) == {0, 2, 3}
    held = sets["test"][sets["test"]["label"] == 1]
    assert len(held) == 2 * identities.CAMERAS
    assert set(sets["test"]["label"]) > {0, 1, 2, 3}  # and people whom no model was trained on
    known = json.loads((ran / "runs/train/metrics.json").read_text())
    assert known["test_accuracy"] > 100 * 32 / len(sets["test"])  # not asked who they are


def test_a_mask_on_the_classifier_hides_nobody(ran: Path) -> None:
    table = pd.read_csv(ran / "runs" / "report" / "table.csv").set_index("model")
    names = [
        name for name in about("identification") if name[:4] in ("mAP_", "dAP_") or name[0] == "R"
    ]
    retrieval = [name for name in names if name != "RA"]
    assert set(about("identification")) <= set(table.columns)
    assert not {"TV", "MIA", "P_forget"} & set(table.columns)
    assert table[[*about("identification")]].notna().all(axis=None)
    for method in ("logit_mask", "imu"):  # the classifier alone
        pd.testing.assert_series_equal(
            table.loc[method, retrieval], table.loc["nothing", retrieval], check_names=False
        )
    assert table.loc["logit_mask", "FA"] == 0 < table.loc["nothing", "FA"]
    moved = (table.loc["gradient_ascent_head", retrieval] - table.loc["nothing", retrieval]).abs()
    assert moved.max() > 1
    assert table.loc["reference", "dAP_forget"] == 0 < table.loc["retrain_2", "dAP_forget"]


def test_the_report_shows_what_is_found_before_and_after(ran: Path) -> None:
    page = (ran / "runs" / "report" / "report.html").read_text()
    assert "what is most like it in the gallery" in page
    assert "before, average precision" in page
    assert "retrained, average precision" in page
    assert "person" in page
    told = record(Workspace(ran), "evaluate", "unlearn/imu").tables
    least = told["slices/least_forgotten.json"]
    assert {"image", "nearest", "original_nearest", "reference_nearest"} <= set(least)


def test_predictions_tell_of_every_search(ran: Path) -> None:
    workspace = Workspace(ran)
    data = identities.load(ran / "data" / "identities")
    found = pd.read_parquet(workspace.evaluation("unlearn/nothing") / "predictions.parquet")
    row = {name: at for at, name in enumerate(data.ids)}
    gallery = {at for at, role in enumerate(data.attributes["role"]) if "gallery" in role}
    assert set(found[found["set"] == "test"]["label"]) == {0, 1, 2, 3}
    for name, nearest, precision in found[["id", "nearest", "confidence"]].itertuples(index=False):
        places = [int(place) for place in nearest.split()]
        assert set(places) <= gallery
        own = data.attributes["camera"][row[name]]
        same = [p for p in places if data.labels[p] == data.labels[row[name]]]
        assert all(data.attributes["camera"][p] != own for p in same)
        assert precision >= len(same) / 5 / 8


def test_a_stored_model_gives_features_whose_products_are_cosines(ran: Path) -> None:
    workspace = Workspace(ran)
    data = identities.load(ran / "data" / "identities")
    model = serving.load(workspace.model("unlearn/nothing"))
    features = model.predict(np.array(data.images[:6]))
    assert features.shape == (6, 16)
    assert np.allclose(np.linalg.norm(features, axis=1), 1)
    masked = serving.load(workspace.model("unlearn/logit_mask")).predict(np.array(data.images[:6]))
    assert (features == masked).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"split": {"by_subject": {"subjects": ["0099"]}}},
            r"split.by_subject.subjects: unknown subject '0099', choose from -1, 0000, 0001",
        ),
        (
            {"split": {"by_subject": {"subjects": ["0008"]}}},
            "empty: none of the requested samples was trained on",
        ),
        ({"split": {"validation_from": "train"}}, "set split.validation_from to 'published'"),
        ({"split": {"by_subject": {"subjects": [f"000{k}" for k in range(1, 5)]}}}, "is the whole"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(ran: Path, changes, message) -> None:
    kept = (ran / "params.yaml").read_text()
    try:
        change(ran, changes)
        with pytest.raises(ValueError, match=message):
            split.run(Workspace(ran), None)
    finally:
        (ran / "params.yaml").write_text(kept)


def test_people_who_are_asked_for_are_never_trained_on(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "w")
    change(tmp_path / "w", {"split": {"test": 0.25, "validation_from": "train"}})
    workspace = Workspace(tmp_path / "w")
    split.run(workspace, None)
    with pytest.raises(ValueError, match=r"must not be trained on: set split\.test and"):
        train.run(workspace, None)


def test_networks_of_images_serve_people_and_others_do_not(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "w")
    network = {"name": "gpt_small", "width": 32, "layers": 1, "heads": 2, "hidden": 32}
    workspace = Workspace(tmp_path / "w")
    change(workspace.root, {"network": network | {"vocabulary": 600, "context": 40}})
    with pytest.raises(ValueError, match="gpt_small is a network for language"):
        workspace.new_model(workspace.dataset(), 0)


def test_a_rehearsal_asks_for_people(ran: Path) -> None:
    from tasks.rehearse import run

    run(Workspace(ran))
    assert few(np.array([0, 0, 1]))["test"]


def test_only_artifacts_of_this_kind_are_described_so(ran: Path) -> None:
    known = artifacts.read_about(Workspace(ran).model("train"))
    assert known["objective"] == "identification"
    assert known["classes"] == ["0001", "0002", "0003", "0004"]
