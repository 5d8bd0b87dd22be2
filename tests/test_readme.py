"""What README.md and docs/methods.md say of the library holds."""

import json
import re

import torch
from ruamel.yaml import YAML

from imu import discovery, methods
from imu.models import resnet_small
from imu.objectives import Samples
from imu.verdicts import OUTCOMES
from tasks.__main__ import main
from tasks.files import params
from tasks.unlearn import entries
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
METHODS = (REPOSITORY / "docs" / "methods.md").read_text()


def test_the_library_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 15
    torch.manual_seed(0)
    labels = torch.arange(60) % 10
    images = 0.7 * torch.rand(10, 1, 8, 8)[labels] + 0.3 * torch.rand(60, 1, 8, 8)
    parts = {"forget": labels == 8, "retain": labels != 8, "validation": ..., "test": ...}
    sets = {name: Samples(images[rows], labels[rows]) for name, rows in parts.items()}
    given = {
        "model": trained(Samples(images, labels)),
        "retrained": trained(sets["retain"]),
        "sets": sets,
    }
    exec(example, given)
    assert given["scores"].shape == (6,)
    assert (given["course"][0].accuracy, given["course"][-1].accuracy) == (100.0, 0.0)
    assert given["found"].keys() == given["ideal"].keys()
    assert capsys.readouterr().out.splitlines()[-1] in OUTCOMES


def trained(samples):
    model = resnet_small.build(resnet_small.Config(width=4), (1, 8, 8), 10)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(samples.inputs), samples.targets).backward()
        optimizer.step()
    return model.eval()


def test_every_method_is_listed_with_the_data_it_is_given():
    rows = re.findall(r"^\| (`[a-z0-9_`, ]+`) \|.*\| (forget|retain) \|$", METHODS, re.MULTILINE)
    listed = {name: access for names, access in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {
        name: "retain" if "retain" in discovery.load("imu.methods", name).NEEDS else "forget"
        for name in methods.names()
    }


def test_printed_entries_are_lines_of_params_yaml(capsys):
    assert main(["entries"]) == 0
    printed = capsys.readouterr().out
    # YAML has lists where Python has tuples.
    assert YAML(typ="safe").load(printed) == json.loads(json.dumps({"unlearn": entries()}))
    shipped = (REPOSITORY / params.FILE).read_text()
    (imu,) = re.findall(r"^  imu:\n(?:    .*\n)+", printed, re.MULTILINE)
    assert imu in shipped
