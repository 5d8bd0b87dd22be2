"""A logged model brings its code: it is loaded where neither the pipeline nor the clone is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from imu.serving import load
from imu.serving.classification import stored
from tasks.files import artifacts
from tasks.tracking import serving
from tests.conftest import run

CODE = """
from torch import nn

def flat(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 4, width), nn.ReLU(), nn.Linear(width, 3))
"""
ELSEWHERE = """
import sys
sys.modules.update(dict.fromkeys(["tasks", "flows", "mlflow", "prefect", "dvc", "pandas"]))
sys.path.insert(0, {code!r})
import numpy as np
import imu
assert imu.__file__.startswith({code!r}), imu.__file__
from imu.serving import _load_pyfunc
print(_load_pyfunc({data!r}).predict(np.full((2, 2, 4, 4), 51, dtype=np.uint8)).tolist())
"""


def test_a_packed_model_is_loaded_by_what_it_brings(tmp_path: Path) -> None:
    root, packed = tmp_path / "root", tmp_path / "packed"
    (root / "own" / "more").mkdir(parents=True)
    (root / "own" / "more" / "nets.py").write_text(CODE)
    packed.mkdir()
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, 3))
    about = {
        "objective": "classification",
        "network": "custom",
        "config": {"factory": "own.more.nets:flat", "arguments": {"width": 5}, "head": ""},
        "image": [2, 4, 4],
        "pixels": {"scale": 255.0, "mean": [0.1, 0.2], "std": [0.5, 0.25]},
        "classes": ["a", "b", "c"],
    }
    artifacts.write_tensors(packed / "model.safetensors", model.state_dict(), about)
    flavour = serving.pack(packed, root, about, "model.safetensors")["python_function"]
    assert flavour["loader_module"] == "imu.serving"
    environment = json.loads((packed / flavour["env"]["virtualenv"]).read_text())
    assert environment["dependencies"] == ["-r requirements.txt"]
    pins = (packed / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in pins
    call = ELSEWHERE.format(code=str(packed / flavour["code"]), data=str(packed / flavour["data"]))
    found = json.loads(run(sys.executable, "-P", "-c", call, cwd=tmp_path, PYTHONPATH="").stdout)
    inputs = torch.tensor([(0.2 - 0.1) / 0.5, 0.0])[:, None, None].expand(2, 2, 4, 4)
    with torch.no_grad():
        expected = model.eval()(inputs).softmax(1)
    assert np.allclose(found, expected, atol=1e-6)


def test_a_file_that_holds_no_model_is_named(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    (tmp_path / "none").write_bytes(b"\xff" * 20)
    (tmp_path / "slip").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("other", "none", "slip"):
        with pytest.raises(ValueError, match=f"{name} is no model.safetensors of imu: "):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 8, 8), np.float32), "got float32 up to 0"),  # scaled: by what?
        (np.full((1, 1, 8, 8), 17, np.uint8), "got uint8 up to 17"),
        (np.array([["a"]]), "uint8 of 0 to 16, as stored in data/, got <U1"),
        (np.array([None]), "got object"),
        (np.zeros((8, 8), np.uint8), r"the shape \(n, 1, 8, 8\), got \(8, 8\)"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"the shape \(n, 1, 8, 8\), got \(1, 8, 8, 1\)"),
        (np.zeros((1, 1, 9, 8), np.uint8), r"the shape \(n, 1, 8, 8\), got \(1, 1, 9, 8\)"),
    ],
)
def test_images_that_are_not_as_the_data_hold_them_are_refused(images, message) -> None:
    assert stored(np.full((1, 1, 8, 8), 16, np.uint8)[..., ::-1], [1, 8, 8], 16.0).max() == 16
    stored(np.zeros((0, 1, 8, 8), np.uint8), [1, 8, 8], 16.0)
    with pytest.raises(ValueError, match=message):
        stored(images, [1, 8, 8], 16.0)
