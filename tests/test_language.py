"""Texts through the same graph, commands and pages as images, on a few small people."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp

from imu import serving
from imu.datasets import Source, biographies
from imu.metrics import about
from imu.models import gpt_small
from imu.objectives import IGNORED, Samples, answered
from imu.objectives import language as task
from imu.training import Config
from imu.training.distributed import ALONE
from imu.training.feeds.language import feed
from tasks import evaluate, influence, report, retrain, split, train, unlearn
from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.pages.kinds import language
from tasks.tracking.record import record
from tasks.tracking.serving import pack
from tests.conftest import REPOSITORY, change, keep

CPU = torch.device("cpu")
SMALL = gpt_small.Config(width=16, layers=1, heads=2, hidden=16, vocabulary=400)
PEOPLE = Source(people=12, seed=3)
CHANGES = {
    "data": {"people": 12, "seed": 3},
    "split": {
        "dataset": "biographies",
        "used": 1.0,
        "scenario": "fraction",
        "validation": 0.25,
        "test": 0.25,
        "by_fraction": {"fraction": 0.34, "stratified": False},
    },
    "network": {"name": "gpt_small", "width": 32, "layers": 1, "heads": 2, "hidden": 32}
    | {"vocabulary": 600, "context": 40},
    "train": {"optimizer": "adamw", "epochs": 8, "batch_size": 16, "learning_rate": 0.01},
    "unlearn": {"imu": {"max_steps": 5}},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language")
    for name in ("params.yaml", "requests/forgotten.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(REPOSITORY / name, root / name)
    keep(root, {"retrain": ("reference", "retrain_2"), "unlearn": ("nothing", "imu")})
    change(root, CHANGES)
    biographies.write(root / "data" / "biographies", PEOPLE)
    workspace = Workspace(root)
    split.run(workspace, None)
    train.run(workspace, None)
    for item in ("reference", "retrain_2"):
        retrain.run(workspace, item)
    influence.run(workspace, None)
    for item in ("nothing", "imu"):
        unlearn.run(workspace, item)
    for item in ("retrain/reference", "retrain/retrain_2", "unlearn/nothing", "unlearn/imu"):
        evaluate.run(workspace, item)
    report.run(workspace, None)
    return root


def test_subjects_are_forgotten_whole_and_lie_in_one_set(ran: Path) -> None:
    workspace = Workspace(ran)
    sets = {name: workspace.read_manifest(name) for name in ("forget", "retain", "validation")}
    subjects = {name: set(rows["subject"]) for name, rows in sets.items()}
    assert [len(of) for of in subjects.values()] == [2, 4, 3]
    assert len(set.union(*subjects.values())) == 9
    assert sets["forget"].groupby("subject").size().tolist() == [32, 32]


def test_every_model_has_every_number_of_texts_and_none_of_images(ran: Path) -> None:
    table = pd.read_csv(ran / "runs" / "report" / "table.csv").set_index("model")
    names = about("language")
    assert set(names) <= set(table.columns)
    assert not set(about("classification")) & set(table.columns)
    assert table[list(names)].notna().all(axis=None)
    assert table.loc["nothing", "P_forget"] > 2 * table.loc["reference", "P_forget"]
    assert table.loc["reference", "dP_forget"] == 0 < table.loc["retrain_2", "dP_forget"]
    verdicts = json.loads((ran / "runs" / "report" / "verdicts.json").read_text())
    assert verdicts["nothing"]["outcome"] == "not forgotten"


def test_the_report_shows_questions_and_what_the_models_say(ran: Path) -> None:
    page = (ran / "runs" / "report" / "report.html").read_text()
    forgotten = Workspace(ran).read_manifest("forget")["subject"].unique()
    assert all(name in page for name in forgotten)
    assert "the reference" in page
    assert '<td data-column="the original">' in page
    assert "By class" not in page
    assert "Truth ratios on the forget set" in page


def test_truth_ratios_are_drawn_as_the_metric_has_them(ran: Path) -> None:
    workspace = Workspace(ran)
    folder = workspace.evaluation("unlearn/imu")
    table = pd.read_parquet(folder / "predictions.parquet")
    assert table.loc[table["set"] == "test", "log_ratio"].isna().all()  # not asked there
    forgotten = table[table["set"] == "forget"]
    apart = ks_2samp(forgotten["log_ratio"], forgotten["reference_log_ratio"])
    assert apart.statistic == artifacts.read_json(folder / "metrics.json")["KS"] > 0
    data = workspace.dataset()
    (part,) = language.whole(data, table)  # type: ignore[arg-type]
    assert part.figure is not None
    assert [name for _, name in part.figure.names] == [*language.RATIOS]
    places = [(point.x, point.y) for point in part.figure.points]
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in places)
    middle = forgotten["log_ratio"].median()
    assert f"this model: 50 % up to {math.exp(middle):.2g}" in [p.title for p in part.figure.points]
    assert not language.whole(data, table.assign(log_ratio=math.nan))  # type: ignore[arg-type]


def test_mlflow_is_told_of_questions_in_place_of_images(ran: Path) -> None:
    found = record(Workspace(ran), "evaluate", "unlearn/imu").tables
    assert list(found) == [
        "slices/by_class.json",
        "slices/least_forgotten.json",
        "slices/got_worse.json",
    ]
    assert list(found["slices/least_forgotten.json"])[:3] == ["subject", "prompt", "answer"]


def test_a_stored_model_answers_where_it_is_served(ran: Path) -> None:
    workspace = Workspace(ran)
    path = workspace.evaluation("unlearn/nothing") / "predictions.parquet"
    said = pd.read_parquet(path).set_index("id")
    rows = workspace.read_manifest("forget")
    data = biographies.load(ran / "data" / "biographies")
    prompts = data.prompts[rows["index"]].tolist()
    model = serving.load(workspace.model("unlearn/nothing"))
    answers = model.predict(pd.DataFrame({"prompt": prompts}))
    # Where the answer was judged it could be a few tokens longer than the true one, here 32.
    judged = said.loc[rows["id"], "said"].tolist()
    assert all(answer.startswith(short) for answer, short in zip(answers, judged, strict=True))
    assert len(set(answers)) > 3


def test_a_packed_model_asks_for_what_reads_texts(ran: Path, tmp_path: Path) -> None:
    about = artifacts.read_about(Workspace(ran).model("train"))
    pack(tmp_path, ran, about, "model.safetensors")
    assert "tokenizers==" in (tmp_path / "requirements.txt").read_text()


def texts(tmp_path: Path):
    biographies.write(tmp_path / "people", PEOPLE)
    data = biographies.load(tmp_path / "people")
    described = task.described(data, gpt_small, SMALL)
    return data, described | {"config": {"context": SMALL.context}}


def test_batches_hold_every_text_once_as_long_as_their_longest(tmp_path: Path) -> None:
    data, known = texts(tmp_path)
    rows = list(range(100))
    made = feed(data, rows, known, Config(batch_size=10), CPU, ALONE)
    everything = task.samples(data, rows, known, CPU)
    draw = torch.Generator().manual_seed(0)
    found, widths = [], set()
    for inputs, targets in made.epoch(draw):
        widths.add(inputs.shape[1])
        assert (targets[:, -1] != IGNORED).any()
        found += [tuple(row[row != 0].tolist()) for row in inputs]
    whole = [tuple(row[row != 0].tolist()) for row in everything.inputs]
    # The last token is never read: what follows it is the end, or nothing.
    assert sorted(found) == sorted(whole)
    assert len(widths) > 1
    # Of a number that no batch divides, none is left out for its length.
    left = feed(data, rows, known, Config(batch_size=32), CPU, ALONE)
    seen = {tuple(r[r != 0].tolist()) for _ in range(20) for b, _ in left.epoch(draw) for r in b}
    assert seen == set(whole)
    again = [inputs for inputs, _ in made.epoch(torch.Generator().manual_seed(0))]
    other = [inputs for inputs, _ in made.epoch(torch.Generator().manual_seed(1))]
    assert any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(again, other, strict=True)
    )


def test_a_tokenizer_knows_unseen_names_as_well_as_those_trained_on(tmp_path: Path) -> None:
    data, known = texts(tmp_path)
    tokens = task.objective(known).tokens
    lengths = {
        name: tokens.encode([name], ["x"], longest=64)[0].shape[1]
        for name in sorted(set(data.attributes["subject"]))
    }
    assert max(lengths.values()) - min(lengths.values()) <= 3


def test_answers_do_not_depend_on_how_many_are_asked_at_once(tmp_path: Path) -> None:
    data, known = texts(tmp_path)
    model = task.built(gpt_small, SMALL, known).double()
    samples = task.samples(data, list(range(40)), known, CPU)
    objective = task.objective(known)
    found = answered(model, objective, samples)
    for row in (0, 17, 39):
        one = answered(model, objective, Samples(samples.inputs[[row]], samples.targets[[row]]))
        assert float(one.losses[0]) == pytest.approx(float(found.losses[row]), rel=1e-9)
        assert float(one.margins[0]) == pytest.approx(float(found.margins[row]), rel=1e-9)
    assert found.right.min() >= 0
    assert found.right.max() <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": {"context": 8}},
            "'person-000-birth_date-1' is too long for network.context, 8",
        ),
        ({"network": {"name": "resnet_small", "width": 4}}, "network.name: resnet_small is a netw"),
        ({"pixels": {"mean": [0.5], "std": [0.5]}}, r"pixels.mean must be \[\] where"),
    ],
)
def test_what_is_for_images_is_refused_for_texts(ran: Path, changes: dict, message: str) -> None:
    kept = (ran / "params.yaml").read_text()
    try:
        change(ran, changes)
        workspace = Workspace(ran)
        with pytest.raises(ValueError, match=message):
            workspace.new_model(workspace.dataset(), 0)
    finally:
        (ran / "params.yaml").write_text(kept)
