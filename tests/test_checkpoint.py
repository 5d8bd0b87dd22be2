"""Weights from elsewhere: what is read, what is refused, and that no code runs."""

import argparse
import json
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from imu import checkpoint
from tests.tiny_sources import Malicious


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 4))


def same(some, others) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[k], others[k]) for k in some)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("form", ["safetensors", *checkpoint.NESTED, "bare", "legacy"])
def test_weights_are_read_from(form, prefix, tmp_path):
    state = network().state_dict()
    named = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    path = tmp_path / "weights.pth"  # the suffix says nothing
    if form == "safetensors":
        save_file(named, path)
    elif form in ("bare", "legacy"):
        torch.save(named, path, _use_new_zipfile_serialization=form == "bare")
    else:
        torch.save({form: named, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    model = network(seed=1)
    assert not same(model.state_dict(), state)
    remarks = checkpoint.load_into(model, path)
    assert same(model.state_dict(), state)
    assert remarks == ([f"names begin with {prefix!r} there, which is left out"] if prefix else [])


def test_one_prefix_stands_before_all_names(tmp_path):
    state = network().state_dict()
    mixed = {("net." if "weight" in name else "") + name: t for name, t in state.items()}
    torch.save(mixed, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"unexpected: net\.0\.weight"):
        checkpoint.load_into(network(), tmp_path / "weights")


def prefixed(prefix: str, state: dict, **more) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()} | more


CONTAINERS = {
    "lightning": (
        lambda right, wrong: {
            "epoch": 3,
            "state_dict": prefixed("model.", right, **{"criterion.pos_weight": torch.ones(1)}),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        },
        ["names begin with 'model.' there, which is left out", "left out: criterion.pos_weight"],
    ),
    "averaged": (
        lambda right, wrong: prefixed("module.", right, n_averaged=torch.tensor(7)),
        ["names begin with 'module.' there, which is left out", "left out: n_averaged"],
    ),
    "ema alone": (lambda right, wrong: {"ema": right, "updates": 9}, []),
    "ema beside": (
        lambda right, wrong: {"ema": wrong, "model": right},
        ["several sets of weights fit: taken are 'model', not 'ema'"],
    ),
    "within": (lambda right, wrong: {"ema": {"decay": 0.9, "shadow": right}}, []),
    "student and teacher": (
        lambda right, wrong: prefixed("student.", right) | prefixed("teacher.", wrong),
        [
            "several sets of weights fit: taken are 'student', not 'teacher'",
            "names begin with 'student.' there, which is left out",
            "left out: teacher.0.weight, teacher.0.bias, teacher.1.weight, teacher.1.bias, "
            "teacher.1.running_mean and 4 more",
        ],
    ),
    "another network beside": (
        lambda right, wrong: {"model": {"3.weight": torch.ones(1)}, "generator": right},
        ["taken are the weights in 'generator', not those in 'model'"],
    ),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_what_training_programs_write_is_read_and_said(kind, tmp_path):
    content, remarks = CONTAINERS[kind]
    right, wrong = network(seed=0).state_dict(), network(seed=2).state_dict()
    torch.save(content(right, wrong), tmp_path / "weights")
    model = network(seed=1)
    assert checkpoint.load_into(model, tmp_path / "weights") == remarks
    assert same(model.state_dict(), right)


def test_what_does_not_fit_is_named_with_its_place(tmp_path):
    torch.save({"ema": {"0.weight": torch.ones(1)}}, tmp_path / "weights")
    with pytest.raises(ValueError, match="weights, 'ema', does not fit Sequential: 7 missing"):
        checkpoint.load_into(network(), tmp_path / "weights")


class Tied(nn.Module):
    """One layer under two names, one convolution called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.second(self.first(x).relu()))


@pytest.mark.parametrize("without", [(), ("first.weight",), ("second.weight", "first.bias")])
def test_of_a_tensor_in_two_places_one_name_is_enough(without, tmp_path):
    torch.manual_seed(0)
    state = Tied().state_dict()
    torch.save({n: t for n, t in state.items() if n not in without}, tmp_path / "weights")
    model = Tied()
    checkpoint.load_into(model, tmp_path / "weights")
    assert same(model.state_dict(), state)


def test_two_tensors_for_one_are_refused(tmp_path):
    state = dict(Tied().state_dict())
    state["second.bias"] = state["second.bias"] + 1
    torch.save(state, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"1 other than its twin, .*: second\.bias$"):
        checkpoint.load_into(Tied(), tmp_path / "weights")


def test_a_wrapped_network_takes_weights_with_and_without_its_prefix(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

    state = network().state_dict()
    for saved in (state, Wrapped(network()).state_dict()):
        torch.save(saved, tmp_path / "weights")
        model = Wrapped(network(seed=1))
        checkpoint.load_into(model, tmp_path / "weights")
        assert same(model.module.state_dict(), state)


@pytest.mark.parametrize("how", ["in a state dict", "beside it", "a plain pickle"])
def test_code_in_a_file_is_not_run(how, tmp_path):
    path, proof = tmp_path / "weights.pt", tmp_path / "proof"
    tensors = network().state_dict()
    if how == "in a state dict":
        torch.save({**tensors, "x": Malicious(proof)}, path)
    elif how == "beside it":
        torch.save({"state_dict": tensors, "args": Malicious(proof)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Malicious(proof)}))
    with pytest.raises(ValueError, match=r"weights\.pt holds more than weights.*state_dict\(\)"):
        checkpoint.read(path)
    assert not proof.exists()
    if how == "a plain pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()  # it would have run


def test_a_whole_network_is_refused(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds more than weights: torch\.nn\.modules"):
        checkpoint.read(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("left", [0, 12, -40])
def test_a_truncated_file_is_named(kind, left, tmp_path):
    path = tmp_path / "weights"
    save = save_file if kind == "safetensors" else torch.save
    save(dict(network().state_dict()), path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"^{path} .*damaged"):
        checkpoint.read(path)


def test_what_is_no_file_of_weights_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"weight": [1.0, 2.0]}))
    with pytest.raises(ValueError, match=r"a\.json is text, not weights: it begins with '{\"we"):
        checkpoint.read(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"no file of weights .*missing\.pt"):
        checkpoint.read(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (b"\n <!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a pointer of git-LFS"),
    ],
)
def test_what_a_failed_download_leaves_is_called_what_it_is(begin, what, tmp_path):
    (tmp_path / "weights.pt").write_bytes(begin)
    with pytest.raises(ValueError, match=rf"weights\.pt is {what}, not "):
        checkpoint.read(tmp_path / "weights.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("beside", "objects"),
    [
        (np.float64(1), r"numpy\._core\.multiarray\.scalar, numpy\.dtype"),
        (argparse.Namespace(lr=0.1), r"argparse\.Namespace"),
    ],
)
def test_the_line_that_is_given_converts_the_file(beside, objects, zipped, tmp_path):
    path, state = tmp_path / "best.ckpt", network().state_dict()
    content = {"state_dict": state, "best": beside}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"holds more than weights: {objects}") as refused:
        checkpoint.read(path)
    assert "weights_only" not in str(refused.value)
    code = str(refused.value).partition("python -c '")[2].removesuffix("'")
    try:
        exec(code, {})
    finally:
        torch.serialization.clear_safe_globals()
    assert same(checkpoint.read(tmp_path / "best-weights.pt")["state_dict"], state)


def test_nobody_is_advised_to_run_what_is_in_a_file(tmp_path):
    path = tmp_path / "weights"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of what old programs write
        torch.jit.save(torch.jit.trace(nn.Linear(2, 1), torch.ones(1, 2)), path)
    (tmp_path / "hdf").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    torch.save({"state_dict": Malicious(tmp_path / "proof")}, tmp_path / "bad")
    for name, what in {
        "weights": "program of TorchScript",
        "hdf": "no file of weights",
        "bad": r"holds more than weights: \w*\.exec",
    }.items():
        with pytest.raises(ValueError, match=what) as refused:
            checkpoint.read(tmp_path / name)
        assert "weights_only" not in str(refused.value)
        assert "add_safe_globals" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "must hold tensors by name, got Tensor"),
        ({}, "must hold tensors by name, alone or below a name such as .*; it holds nothing"),
        ({"epoch": 3, "net": [torch.ones(1)]}, "it holds epoch, net"),
        ({"weight": torch.ones(1), "scale": 2.0}, "it holds weight, scale"),
        ({"model": {}}, "it holds model"),
    ],
)
def test_what_holds_no_state_dict_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "weights")
    with pytest.raises(ValueError, match=message):
        checkpoint.read(tmp_path / "weights")


def change(state):
    """One fault of each kind."""
    return {
        "missing": lambda: state.pop("0.bias"),
        "unexpected": lambda: state.update({"3.weight": torch.ones(1)}),
        "shape": lambda: state.update({"2.weight": torch.ones(3, 4)}),
        "kind": lambda: state.update({"2.weight": torch.ones(4, 3, dtype=torch.int64)}),
        "nan": lambda: state["1.running_var"].fill_(torch.nan),
        "inf": lambda: state["0.weight"][0].fill_(torch.inf),
    }


MESSAGES = {
    "missing": r"weights\.safetensors does not fit Sequential: 1 missing: 0.bias$",
    "unexpected": "1 unexpected: 3.weight$",
    "shape": r"1 of another shape or kind: 2\.weight \(\(3, 4\) float32, not \(4, 3\) float32\)$",
    "kind": r"1 of another shape or kind: 2\.weight \(\(4, 3\) int64, not \(4, 3\) float32\)$",
    "nan": "1 not finite: 1.running_var$",
    "inf": "1 not finite: 0.weight$",
}


@pytest.mark.parametrize("fault", MESSAGES)
def test_weights_that_do_not_fit_are_named_and_change_nothing(fault, tmp_path):
    state, model = dict(network().state_dict()), network(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(state)[fault]()
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=MESSAGES[fault]):
        checkpoint.load_into(model, tmp_path / "weights.safetensors")
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")])
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_tensors_that_are_not_there_in_full_are_named(change, tmp_path):
    state = network().state_dict()
    torch.save({**state, "0.weight": change(state["0.weight"])}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"1 sparse, or without numbers: 0\.weight$"):
        checkpoint.load_into(network(), tmp_path / "weights")


def test_of_many_faults_the_first_are_named(tmp_path):
    torch.save({f"layer.{k}": torch.ones(1) for k in range(8)}, tmp_path / "weights")
    unexpected = r"8 unexpected: layer\.0, layer\.1, layer\.2, layer\.3, layer\.4 and 3 more$"
    with pytest.raises(
        ValueError, match=rf"{tmp_path}/weights does not .*8 missing.*; {unexpected}"
    ):
        checkpoint.load_into(network(), tmp_path / "weights")


def test_files_from_before_batches_were_counted_fit(tmp_path):
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    torch.save(dict(state), tmp_path / "weights")
    model = network(seed=1)
    checkpoint.load_into(model, tmp_path / "weights")
    assert torch.equal(model[0].weight, state["0.weight"])


def test_precision_is_that_of_the_network(tmp_path):
    torch.save(network().half().state_dict(), tmp_path / "weights")
    model = network(seed=1)
    checkpoint.load_into(model, tmp_path / "weights")
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, network()[0].weight.half().float())
