"""The search for the methods' parameters: what it tries, and what it judges by."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from imu import discovery, methods
from imu.methods.common.descent import Sgd
from imu.methods.gradient_ascent import Config
from imu.objectives import IGNORED, Samples
from imu.objectives.classification import Classification
from tasks import tune
from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.judging import classification, language
from tests import oracles
from tests.conftest import make_workspace, tasks
from tests.problems import Sequences, Tokens


@dataclass(frozen=True, kw_only=True)
class Outer:
    share: float
    sgd: Sgd


def test_a_candidate_changes_what_it_names_and_nothing_else() -> None:
    before = Outer(share=0.5, sgd=Sgd(learning_rate=0.1, epochs=3))
    found = tune.changed(before, {"share": 0.2, "sgd.learning_rate": 0.7})
    assert found == Outer(share=0.2, sgd=Sgd(learning_rate=0.7, epochs=3))
    with pytest.raises(ValueError, match="learning_rate must be > 0"):
        tune.changed(before, {"sgd.learning_rate": -1.0})


def test_no_candidate_is_tried_twice() -> None:
    seen = [(entry, json.dumps(candidate)) for entry, _, candidate, _ in tune.candidates()]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("classes", [(), (1,)])
def test_accuracies_equal_the_loop(classes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, sets = nn.Linear(4, 3), {}
    for size, name in enumerate(tune.SETS, 20):
        sets[name] = Samples(torch.randn(size, 4), torch.arange(size) % 3)
    found = classification.accuracies(model, Classification(), sets, classes)
    expected = {
        name: oracles.accuracy(model(samples.inputs), samples.targets, keep)
        for name, samples, keep in (
            ("FA", sets["forget"], lambda label: True),
            ("RA", sets["retain"], lambda label: True),
            ("TA", sets["validation"], lambda label: label not in classes),
            ("TFA", sets["validation"], lambda label: label in classes),
        )
        if name != "TFA" or classes
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_candidate_for_texts_is_held_against_each_answer_of_the_reference() -> None:
    """Oracle: the products of the probabilities of each answer's tokens, one by one."""
    torch.manual_seed(0)
    sets, (reference, model) = {}, (Tokens().double() for _ in range(2))
    for size, name in enumerate(tune.SETS, 5):
        draw = torch.Generator().manual_seed(size)
        inputs = {"tokens": torch.randint(0, 11, (size, 4), generator=draw)}
        targets = torch.randint(0, 4, (size, 4), generator=draw)
        targets[:, 0] = targets[0, 1] = IGNORED
        sets[name] = Samples(inputs, targets)

    def of(network: nn.Module, name: str) -> list[float]:
        found = []
        for row, wanted in zip(
            Sequences().logits(network, sets[name].inputs), sets[name].targets, strict=True
        ):
            each = [z.softmax(0)[y].item() for z, y in zip(row, wanted, strict=True) if y >= 0]
            found.append(100 * math.prod(each) ** (1 / len(each)))
        return found

    values, gap = language.held(reference, Sequences(), sets, ())(model)
    aims = {name: (of(model, name), of(reference, name)) for name in sets}
    means = {name: sum(a) / len(a) - sum(b) / len(b) for name, (a, b) in aims.items()}
    pairs = {
        name: sum(abs(x - y) for x, y in zip(*aims[name], strict=True)) / len(aims[name][0])
        for name in ("forget", "retain")
    }
    expected = (sum(map(abs, means.values())) + sum(pairs.values())) / 5
    assert gap == pytest.approx(expected, rel=1e-9)
    assert gap > 0.1
    assert values["P_retain"] == pytest.approx(sum(aims["retain"][0]) / len(aims["retain"][0]))
    assert values["dP_forget"] == pytest.approx(pairs["forget"])


@pytest.mark.slow
def test_candidates_are_judged_without_test_images_and_failures_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_workspace(tmp_path / "workspace")
    for stage in ("split", "train", "retrain reference", "influence"):
        tasks(root, *stage.split())
    workspace = Workspace(root)
    workspace.manifest("test").unlink()
    rates = {"good": 0.01, "bad": 1e38}
    monkeypatch.setattr(
        tune,
        "candidates",
        lambda: (
            (name, "gradient_ascent", {"sgd.learning_rate": rate}, config)
            for name, rate in rates.items()
            for config in [Config(parameters="head", sgd=Sgd(learning_rate=rate, epochs=2))]
        ),
    )
    tune.run(workspace)
    table = artifacts.read_table(root / "runs" / "tune" / "candidates.csv").set_index("entry")
    assert pd.isna(table.loc["bad", "gap"])
    assert "gradient_ascent: " in table.loc["bad", "failure"]
    assert pd.isna(table.loc["good", "failure"])
    aim = classification.accuracies(*_reference(workspace), (8,))
    gaps = [abs(table.loc["good", name] - aim[name]) for name in ("FA", "RA", "TA", "TFA")]
    assert table.loc["good", "gap"] == pytest.approx(sum(gaps) / 4, abs=1e-9)
    entry = asdict(Config(parameters="head", sgd=Sgd(learning_rate=1.0, epochs=2)))
    # Grids name entries of their own; what was judged before keeps what came out.
    ascent = {"method": "gradient_ascent", "data_access": "forget", **entry}
    space = {"sgd.learning_rate": [0.01, 0.02], "sgd.epochs": [2]}
    artifacts.write_json(
        tmp_path / "grids.json",
        {
            "ascent": {"entry": ascent, "space": space},
            "nothing": {"entry": {"method": "nothing", "data_access": "forget"}, "space": {}},
        },
    )
    judged, made = tune.judge, []
    monkeypatch.setattr(
        tune,
        "judge",
        lambda of: lambda method, config: made.append(method) or judged(of)(method, config),
    )
    for _ in range(2):
        tune.run(workspace, tmp_path / "grids.json")
        again = artifacts.read_table(root / "runs" / "tune" / "candidates.csv", failure="str")
        assert again["entry"].tolist() == ["ascent", "ascent", "nothing"]
        assert again["candidate"].iloc[2] == "{}"
        assert again["gap"].iloc[0] == table.loc["good", "gap"]
        assert (again["failure"] == "").all()
        assert made == ["gradient_ascent", "nothing"]
    request = {
        "entry": {"method": "gradient_ascent", "data_access": "forget", **entry},
        "candidates": [{"sgd.learning_rate": rate} for rate in rates.values()],
    }
    asked = tmp_path / "asked.json"
    artifacts.write_json(asked, request)
    tune.asked(workspace, asked)
    good, bad = artifacts.read_json(tune.answer(asked))
    assert good["gap"] == table.loc["good", "gap"]
    assert bad == {"gap": None, "failure": table.loc["bad", "failure"]}


def _reference(workspace: Workspace) -> tuple[nn.Module, Classification, dict[str, Samples]]:
    from tasks.files.samples import load_samples
    from tasks.files.workspace import load_model

    data, device = workspace.dataset(), workspace.device()
    model, about = load_model(workspace.model("retrain/reference"))
    loaded = {name: load_samples(workspace, name, data, about, device) for name in tune.SETS}
    return model, loaded["forget"][1], {name: samples for name, (samples, _) in loaded.items()}


def test_a_search_names_fields_that_the_config_has() -> None:
    for method in methods.names():
        search = getattr(discovery.load("imu.methods", method), "SEARCH", {})
        for config in methods.variants(method).values():
            for path, values in search.items():
                for value in values:
                    assert tune.changed(config, {path: value}) is not None
