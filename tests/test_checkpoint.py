"""Weights from elsewhere: what is read, what is refused, and that no code runs."""

import json
import pickle
from collections import OrderedDict

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
    assert same(checkpoint.read(path), state)
    model = network(seed=1)
    assert not same(model.state_dict(), state)
    checkpoint.load_into(model, path)
    assert same(model.state_dict(), state)


def test_a_prefix_is_common_to_all_names(tmp_path):
    tensors = {"module.weight": torch.ones(2), "bias": torch.zeros(2)}
    torch.save(tensors, tmp_path / "weights")
    assert same(checkpoint.read(tmp_path / "weights"), tensors)


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
    with pytest.raises(ValueError, match=r"model\.pt holds more than weights, or is damaged"):
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
    with pytest.raises(ValueError, match=r"a\.json .*damaged"):
        checkpoint.read(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"no file of weights .*missing\.pt"):
        checkpoint.read(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "must hold tensors by name, got Tensor"),
        ({}, "must hold tensors by name, alone or below one of .*; it holds nothing"),
        ({"epoch": 3, "net": {"a": torch.ones(1)}}, "it holds epoch, net"),
        ({"weight": torch.ones(1), "scale": 2.0}, "it holds weight, scale"),
        (
            {"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}},
            "it holds model, state_dict",
        ),
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
