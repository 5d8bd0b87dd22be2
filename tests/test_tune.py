"""The search for the methods' parameters: what it tries, and what it judges by."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from flows.searching import space as spaces
from imu.methods.common.descent import Sgd
from imu.methods.gradient_ascent import Config
from imu.objectives import IGNORED, Samples
from imu.objectives.classification import Classification
from tasks import tune, unlearn
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace
from tasks.judging import classification, language
from tests import oracles
from tests.conftest import make_workspace, tasks
from tests.problems import Sequences, Tokens


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
def test_candidates_are_judged_without_test_images_and_failures_kept(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    for stage in ("split", "train", "retrain reference", "influence"):
        tasks(root, *stage.split())
    workspace = Workspace(root)
    workspace.manifest("test").unlink()
    entry = asdict(Config(parameters="head", sgd=Sgd(learning_rate=1.0, epochs=2)))
    request = {
        "entry": {"method": "gradient_ascent", "data_access": "forget", **entry},
        "candidates": [{"sgd.learning_rate": rate} for rate in (0.01, 1e38)],
    }
    asked = tmp_path / "asked.json"
    artifacts.write_json(asked, request)
    tune.asked(workspace, asked)
    good, bad = artifacts.read_json(tune.answer(asked))
    assert bad["gap"] is None
    assert "gradient_ascent: " in bad["failure"]
    assert good["failure"] == ""
    aim = classification.accuracies(*_reference(workspace), (8,))
    gaps = [abs(good[name] - aim[name]) for name in ("FA", "RA", "TA", "TFA")]
    assert good["gap"] == pytest.approx(sum(gaps) / 4, abs=1e-9)


def _reference(workspace: Workspace) -> tuple[nn.Module, Classification, dict[str, Samples]]:
    from tasks.files.samples import load_samples
    from tasks.files.workspace import load_model

    data, device = workspace.dataset(), workspace.device()
    model, about = load_model(workspace.model("retrain/reference"))
    loaded = {name: load_samples(workspace, name, data, about, device) for name in tune.SETS}
    return model, loaded["forget"][1], {name: samples for name, (samples, _) in loaded.items()}


def test_a_search_names_fields_that_the_config_has_and_changes_them_alone() -> None:
    for entry in unlearn.entries().values():
        for path, values in spaces.named(entry["method"]).items():
            for value in values:
                made = params.flattened(asdict(tune.configured(entry, {path: value})))
                before = params.flattened(asdict(tune.configured(entry, {})))
                assert made == {**before, path: value}
