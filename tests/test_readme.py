"""What README.md says of the library holds."""

import json
import re

import torch
from ruamel.yaml import YAML

from imu import discovery, methods
from imu.models import resnet_small
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


def test_every_method_is_listed_with_the_data_it_is_given():
    rows = re.findall(r"^\| (`[a-z0-9_`, ]+`) \|.*\| (forget|retain) \|$", README, re.MULTILINE)
    listed = {name: access for names, access in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {
        name: "retain" if "retain" in discovery.load("imu.methods", name).NEEDS else "forget"
        for name in methods.names()
    }


def test_a_printed_entry_is_a_line_of_params_yaml():
    text = "".join(f"  {params.line({name: entry})}\n" for name, entry in entries().items())
    assert len(text.splitlines()) == len(entries())
    # YAML has lists where Python has tuples.
    assert YAML(typ="safe").load(f"unlearn:\n{text}") == json.loads(
        json.dumps({"unlearn": entries()})
    )
