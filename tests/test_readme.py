"""What README.md says of the library holds."""

import json
import re

import torch
from ruamel.yaml import YAML

from imu import discovery, unlearn
from imu.models import resnet_small
from tasks.__main__ import main
from tasks.files import params
from tasks.unlearn import entries
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_the_library_example_runs(capsys):
    torch.manual_seed(0)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    model = resnet_small.build(resnet_small.Config(width=4), (1, 8, 8), 10)
    given = {"model": model, "images": torch.rand(6, 1, 8, 8), "labels": torch.full((6,), 8)}
    exec(example, given)
    assert given["deeper"].shape == given["scores"].shape == (6,)
    assert not torch.equal(given["deeper"], given["scores"])
    assert given["step"].accuracy == 0.0
    assert "accuracy=0.0" in capsys.readouterr().out


def test_every_method_is_listed_with_what_it_sees():
    rows = re.findall(r"^\| (`[a-z0-9_`, ]+`) \|.*\| (forget|retain) \|$", README, re.MULTILINE)
    listed = {name: sees for names, sees in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {
        name: "retain" if "retain" in discovery.load("imu.unlearn", name).NEEDS else "forget"
        for name in unlearn.names()
    }


def test_printed_entries_are_lines_of_params_yaml(capsys):
    assert main(["entries"]) == 0
    printed = capsys.readouterr().out
    # YAML has lists where Python has tuples.
    assert YAML(typ="safe").load(printed) == json.loads(json.dumps({"unlearn": entries()}))
    shipped = (REPOSITORY / params.FILE).read_text()
    (imu,) = re.findall(r"^  imu:\n(?:    .*\n)+", printed, re.MULTILINE)
    assert imu in shipped
