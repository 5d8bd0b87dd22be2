"""What would fail late is named before anything is trained."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm

from flows.running.workspaces import of_the_user
from imu import influences, methods
from imu.datasets import Source, digits
from imu.methods.common.descent import Sgd
from imu.metrics import Subject
from imu.models import find_head
from imu.objectives import Samples
from imu.objectives.classification import Classification
from imu.rehearsal import Method, Trial, few, rehearse, shortened
from tasks import rehearse as command
from tasks.files import params
from tasks.files.workspace import Workspace
from tasks.judging.classification import found
from tests.conftest import REPOSITORY
from tests.problems import Shared
from tests.test_own_model import replace_section

torch.set_num_threads(1)
LABELS = np.arange(60) % 3
EVERY = {
    name: Method(method, config)
    for method in methods.names()
    for name, config in methods.variants(method).items()
}


def sets(classes: tuple[int, ...]) -> dict[str, Samples]:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, 8, 8, generator=draw)
    return {
        name: Samples(images[rows], torch.from_numpy(LABELS)[rows])
        for name, rows in few(LABELS, classes).items()
    }


def tried(model: nn.Module, classes: tuple[int, ...] = (1,), **given) -> list[Trial]:
    choices = {"influence": influences.Config(), "methods": {"imu": EVERY["imu"]}} | given
    samples = sets(classes)

    def attacked(network: nn.Module) -> Subject:
        outputs = found(network, Classification(), samples, None, {}, {}, classes)
        return Subject(model=network, objective=Classification(), samples=samples, outputs=outputs)

    return list(
        rehearse(model, Classification(), samples, classes=classes, attacked=attacked, **choices)
    )


def faults(*given, **choices) -> dict[str, str]:
    return {trial.what: trial.fault for trial in tried(*given, **choices) if trial.fault}


class Net(nn.Module):
    def __init__(self, after=lambda net, logits: logits):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images.to(self.conv.bias.dtype)).relu()
        return self.after(self, self.head(maps.mean((2, 3))))


def old_weight_norm() -> nn.Module:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own: it is old
        weight_norm(net.conv)
    return net


LATE = {
    "softmax": (
        lambda: Net(lambda _, z: z.softmax(-1)),
        ("logits", "return what enters the softmax"),
    ),
    "dropout": (
        lambda: Net(lambda _, z: F.dropout(z, 0.3)),
        ("evaluation mode", r"F\.dropout\(x, p, self\.training\)"),
    ),
    "batch": (
        lambda: Net(lambda _, z: z - z.mean(0)),
        ("evaluation mode", "depends on the others of its batch"),
    ),
    "bfloat16": (
        lambda: Net().bfloat16(),
        ("predictions", r"weights are bfloat16.*network\.float"),
    ),
    "low outputs": (lambda: Net(lambda _, z: z.half()), ("predictions", "return them as float32")),
    "not finite": (lambda: Net(lambda _, z: z / 0), ("predictions", "not finite")),
    "broken": (lambda: Net(lambda _, z: z @ z), ("predictions", "RuntimeError: .*mat1 and mat2")),
    "old weight_norm": (
        old_weight_norm,
        ("gradients and copies", r"cannot be copied.*torch\.nn\.utils\.parametrizations"),
    ),
    "detached": (
        lambda: Net(lambda _, z: z.detach()),
        ("gradients and copies", "do not depend on any parameter"),
    ),
}


@pytest.mark.parametrize("kind", LATE)
def test_a_network_that_breaks_late_is_named_at_once_with_the_way_on(kind):
    build, (what, why) = LATE[kind]
    torch.manual_seed(0)
    trials = tried(build())
    assert trials[-1].what == what  # the rest would fail of the same
    assert [trial.what for trial in trials if trial.fault] == [what]
    with pytest.raises(ValueError, match=why):
        raise ValueError(trials[-1].fault)


@pytest.mark.parametrize("classes", [(1,), ()])
def test_every_method_and_attack_is_tried_and_the_network_left_as_it_is(classes):
    torch.manual_seed(0)
    model = Shared()
    find_head(model, (1, 8, 8))
    before = copy.deepcopy(model.state_dict())
    trials = tried(model, classes, methods=EVERY)
    assert [trial for trial in trials if trial.fault] == []
    done = {trial.what for trial in trials}
    assert done >= {f"unlearn.{name}" for name in EVERY}
    assert done >= {"influence", "linear_probe", "fine_tune_relearning", "membership"}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_what_needs_a_head_of_its_own_is_named_and_the_rest_goes_on():
    torch.manual_seed(0)
    model = Net()
    model.head = parametrizations.weight_norm(model.head)
    with pytest.raises(ValueError, match="computes its weight"):
        find_head(model, (1, 8, 8))
    methods = {name: EVERY[name] for name in ("imu", "logit_mask", "delete", "npo")}
    found = faults(model, methods=methods)
    assert found.keys() == {"influence", "unlearn.imu", "unlearn.logit_mask"}
    assert all("remove_parametrizations" in why for why in found.values())
    everywhere = influences.Config(parameters=("conv",))
    assert "influence" not in faults(model, methods=methods, influence=everywhere)


def test_what_fails_in_one_way_alone_is_found():
    found = faults(Net(), influence=influences.Config(parameters=("conv",), fisher="full"))
    assert found.keys() == {"influence"}
    assert "fisher must be diagonal" in found["influence"]

    def train(net: nn.Module) -> None:
        raise RuntimeError("too small an image")

    assert faults(Net(), also={"train": train}) == {"train": "RuntimeError: too small an image"}


def test_few_rows_are_of_few_labels_and_none_is_in_two_sets():
    found = few(np.arange(200) % 10, (7,))
    assert set(found["forget"]) == {7, 17, 27, 37}
    every = [row for rows in found.values() for row in rows]
    assert len(set(every)) == len(every) == 32
    assert {row % 10 for row in found["validation"]} == {7, 0, 1, 2}
    drawn = few(np.arange(200) % 10)
    assert drawn["forget"] == [0, 1, 2, 3]
    assert {name: len(rows) for name, rows in few(np.array([0, 1, 1]), (0,)).items()} == {
        "forget": 4,
        "retain": 4,
        "validation": 4,
        "test": 4,
    }


def test_whatever_is_done_often_is_done_once():
    config = SimpleNamespace(**{name: m.config for name, m in EVERY.items()})
    assert shortened(config.imu).max_steps == 1
    amun = shortened(config.amun)
    assert (amun.attack_steps, amun.sgd.epochs) == (1, 1)
    assert amun.radius == config.amun.radius
    assert shortened(Sgd(learning_rate=1.0, epochs=0)).epochs == 0


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, softmax):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.head = nn.Linear(8, 10)
        self.softmax = softmax

    def forward(self, images):
        logits = self.head(self.body(images))
        return logits.softmax(1) if self.softmax else logits

def build(softmax):
    return Net(softmax)
"""


@pytest.fixture
def before_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace with a network of the user's, and nothing but data and parameters."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rehearsed.py").write_text(OWN)
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    digits.write(tmp_path / "data" / "digits", Source())
    monkeypatch.syspath_prepend(tmp_path)
    mode = torch.get_deterministic_debug_mode()
    yield tmp_path
    torch.set_deterministic_debug_mode(mode)


def network(softmax: bool) -> dict:
    return {
        "name": "custom",
        "factory": "own.rehearsed:build",
        "arguments": {"softmax": softmax},
        "head": "",
    }


def test_the_command_needs_no_split(before_split, capsys):
    replace_section(before_split, {"network": network(softmax=False)})
    command.run(Workspace(before_split))
    said = capsys.readouterr().out
    assert "rehearsed in" in said
    assert "does not work" not in said
    assert {path.name for path in before_split.iterdir()} == {"own", "params.yaml", "data"}


def test_the_command_ends_with_what_fails_and_why(before_split, capsys):
    replace_section(before_split, {"network": network(softmax=True)})
    with pytest.raises(command.RehearsalError, match=r"logits: predictions are probabilities"):
        command.run(Workspace(before_split))
    assert "rehearsed logits: does not work" in capsys.readouterr().out


def test_weights_that_do_not_fit_are_named_by_the_command(before_split):
    torch.save({"a.weight": torch.ones(1)}, before_split / "own" / "mine.pt")
    changes = {"network": network(softmax=False), "original": {"checkpoint": "own/mine.pt"}}
    replace_section(before_split, changes)
    with pytest.raises(ValueError, match=r"mine\.pt does not fit Net: 4 missing"):
        command.run(Workspace(before_split))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"network": network(softmax=False)}, True),
        ({"original": {"checkpoint": "own/mine.pt"}}, True),
        ({"split": {"dataset": "image_table"}}, True),
        ({"split": {"dataset": "cifar10"}}, False),
    ],
)
def test_a_pipeline_run_rehearses_what_is_the_user_s(tmp_path, changes, wanted):
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    replace_section(tmp_path, changes)
    assert of_the_user(tmp_path) == wanted
    assert params.read(tmp_path)
