import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from tasks import unlearn
from tasks.files import artifacts, unlearned
from tasks.files.artifacts import ArtifactError

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
TENSORS = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(7), "b": torch.ones(2).bool()}
TABLE = pd.DataFrame({"id": ["007", "8"], "x": [0.1, 2.0], "keep": [True, False]})
WRITE = {
    "a.safetensors": lambda path: artifacts.write_tensors(path, TENSORS, {"classes": ["0", "1"]}),
    "a.parquet": lambda path: artifacts.write_table(path, TABLE),
    "a.csv": lambda path: artifacts.write_table(path, TABLE),
    "a.json": lambda path: artifacts.write_json(path, {"b": 1, "a": [0.1, None]}),
    "a.txt": lambda path: artifacts.write_text(path, "δ\n"),
    "a.bin": lambda path: artifacts.write_bytes(path, b"\x00\xff"),
}
READ = {
    "a.safetensors": artifacts.read_tensors,
    "a.parquet": artifacts.read_table,
    "a.csv": artifacts.read_table,
    "a.json": artifacts.read_json,
}


def test_text_that_looks_like_nothing_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,n\nNA,1\nnull,2\n007,3\n,4\n")
    table = artifacts.read_table(path, id="str")
    assert table["id"].tolist() == ["NA", "null", "007", ""]
    assert table["n"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id\n1\n2,3,4\n", "a.csv is not a readable CSV table: Error tokenizing data"),
        ("a.csv", b"\xff\xfe\x00", "a.csv is not a readable CSV table: "),
        ("a.csv", b"", "a.csv is not a readable CSV table: No columns to parse"),
        ("a.parquet", b"id\n1\n", "a.parquet is not a readable parquet table: "),
        ("a.csv", None, "a.csv is missing"),
    ],
)
def test_nobody_is_told_to_delete_a_file_of_his_own(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError) as refused:
        artifacts.read_given(tmp_path / name, id="str")
    assert message in str(refused.value)
    assert not {"delete", "dvc"} & set(str(refused.value).replace("`", " ").split())


def test_tensors_come_back(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"
    view = torch.arange(6.0).view(3, 2).T.requires_grad_()  # not contiguous, with gradient
    artifacts.write_tensors(path, TENSORS | {"view": view}, {"classes": ["0"], "n": 1})
    found, about = artifacts.read_tensors(path)
    assert about == {"classes": ["0"], "n": 1}
    assert found.keys() == TENSORS.keys() | {"view"}
    for name, tensor in (TENSORS | {"view": view.detach()}).items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def shared() -> nn.Module:
    """One layer in two places, and a weight that two layers share."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model.add_module("again", model[0])
    model[2].weight = model[1].weight
    return model


def test_a_tensor_with_several_names_is_stored_once_and_comes_back_under_all(tmp_path):
    path, state = tmp_path / "a.safetensors", shared().state_dict()
    artifacts.write_tensors(path, state, {"n": 1})
    stored = set(safetensors.torch.load_file(path))
    assert stored == {"0.weight", "0.bias", "1.weight", "1.bias", "2.bias"}
    found, about = artifacts.read_tensors(path)
    assert about == {"n": 1}
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    shared().load_state_dict(found)


def test_what_overlaps_or_is_empty_is_not_taken_for_one_tensor(tmp_path):
    all_of_it = torch.arange(6.0)
    tensors = {"first": all_of_it[:4], "last": all_of_it[2:], "square": all_of_it[:4].view(2, 2)}
    tensors |= {"none": torch.zeros(0), "nothing": torch.zeros(0)}
    artifacts.write_tensors(tmp_path / "a.safetensors", tensors, {})
    found, _ = artifacts.read_tensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_trajectory_keeps_what_two_places_share_once(tmp_path):
    model, path = shared(), tmp_path / "a.safetensors"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trajectory = unlearn.Trajectory(before, 3)
    with torch.no_grad():
        model[0].bias.add_(1)
    trajectory.add(1, model.state_dict())
    with torch.no_grad():
        model[0].bias.add_(1)  # what was kept stays as it was
    artifacts.write_tensors(path, *trajectory.stored())
    assert set(safetensors.torch.load_file(path)) == {"1/0.bias"}
    ((step, state),) = unlearned.snapshots(path, before)
    assert step == 1
    assert torch.equal(state["again.bias"], before["0.bias"] + 1)
    assert torch.equal(state["0.bias"], before["0.bias"] + 1)


@pytest.mark.parametrize(("name", "types"), [("a.parquet", {}), ("a.csv", {"id": "str"})])
def test_tables_come_back(tmp_path, name, types):
    artifacts.write_table(tmp_path / name, TABLE)
    pd.testing.assert_frame_equal(artifacts.read_table(tmp_path / name, **types), TABLE)


def test_json_comes_back_in_its_order(tmp_path):
    WRITE["a.json"](tmp_path / "a.json")
    assert list(artifacts.read_json(tmp_path / "a.json").items()) == [("b", 1), ("a", [0.1, None])]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_text_and_bytes_come_back(tmp_path):
    WRITE["a.txt"](tmp_path / "a.txt")
    WRITE["a.bin"](tmp_path / "a.bin")
    assert (tmp_path / "a.txt").read_bytes() == "δ\n".encode()
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("name", WRITE)
def test_writing_twice_gives_the_same_bytes(tmp_path, name):
    WRITE[name](tmp_path / name)
    WRITE[name](tmp_path / "other" / name)
    first = (tmp_path / name).read_bytes()
    WRITE[name](tmp_path / name)  # over the old file
    assert (tmp_path / name).read_bytes() == first == (tmp_path / "other" / name).read_bytes()


def test_several_descriptions_are_written_in_one_order(tmp_path):
    # safetensors orders several header keys at random, by process and by call.
    about = {key: key for key in "abcdefgh"}
    for i in range(8):
        artifacts.write_tensors(tmp_path / f"{i}.safetensors", TENSORS, about)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def break_off() -> None:
        with artifacts.replacing(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_last_rename_leaves_the_old_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("disk full")

    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ArtifactError, match=f"{path} could not be written: disk full"):
        artifacts.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    path, order = tmp_path / "a.json", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: order.append("fsync") or fsync(file))
    monkeypatch.setattr(Path, "replace", lambda *names: order.append("rename") or replace(*names))
    artifacts.write_text(path, "new")
    assert order == ["fsync", "rename"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("old", ["old", None])
def test_a_kill_while_writing_leaves_the_old_file(tmp_path, old):
    path, neighbour = tmp_path / "a.json", tmp_path / ".b.json.x"
    neighbour.touch()
    if old:
        path.write_text(old)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tasks.files.artifacts import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [other for other in tmp_path.iterdir() if other not in (path, neighbour)]
    assert [other.read_text() for other in left] == ["half"]
    assert left[0].name.startswith(".a.json.")
    assert (path.read_text() if path.exists() else None) == old
    artifacts.write_text(path, "new")
    assert path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [neighbour, path]


@pytest.mark.parametrize(
    # A shorter CSV is a CSV: only an empty one is seen to be damaged.
    ("name", "share"),
    [(name, share) for name in READ for share in (0.0, 0.5, 0.9) if name != "a.csv" or not share],
)
def test_a_truncated_file_is_named_with_the_way_out(tmp_path, name, share):
    path = tmp_path / name
    WRITE[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=rf"{path} is truncated or damaged .*`dvc checkout`"):
        READ[name](path)


@pytest.mark.parametrize("name", READ)
def test_a_missing_file_is_named_with_the_way_out(tmp_path, name):
    with pytest.raises(ArtifactError, match=rf"{tmp_path / name} is missing: .*`dvc repro`"):
        READ[name](tmp_path / name)


def test_foreign_tensors_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "a.safetensors")  # no description in the header
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_tensors(tmp_path / "a.safetensors")
