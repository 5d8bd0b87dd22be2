"""Every network, the head that is found in it, and networks of the user."""

import copy
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from imu import discovery, ensemble, training
from imu.datasets import LabelledImages
from imu.influences import parameter_influence
from imu.models import custom, find_head, has_head, head, head_name, resnet18, vgg16_bn, vit
from imu.objectives import Samples, features_and_logits, predictions
from imu.objectives.classification import Classification
from tests import oracles
from tests.problems import DAMPING, Shared, Tokens, expected, farness, picked

torch.set_num_threads(1)
TASK = Classification(mean=0.3, std=2.0)
SMALL_VIT = vit.Config(patch_size=16, layers=2, heads=2, width=8, mlp_width=12)
EXACT = 1e-12  # float64; batches of another size may add up in another order


def config(name: str, channels: int = 1):
    """A small network of each file in imu/models; without an entry here, its default."""
    if name == "custom":
        arguments = {"width": 2, "channels": channels, "classes": 5}
        return custom.Config(factory="imu.models.resnet_small:ResNet", arguments=arguments)
    return SMALL_VIT if name == "vit" else discovery.load("imu.models", name).Config()


def built(name: str, channels: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = discovery.load("imu.models", name)
    model = module.build(config(name, channels), (channels, 32, 32), 5)
    if name == "vit":
        nn.init.normal_(head(model).weight)  # starts at zero
    return model


NETWORKS = [
    name
    for name in discovery.names("imu.models")
    if not hasattr(discovery.load("imu.models", name), "OBJECTIVE")
]
each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_the_input_of_the_head(name, channels):
    model = built(name, channels).double()
    images = torch.randn(2, channels, 32, 32, dtype=torch.float64)
    model(images)  # moves the BatchNorm statistics away from 0 and 1
    features, logits = features_and_logits(model, TASK, images, batch_size=1)
    assert logits.shape == (2, 5)
    assert not logits.requires_grad
    model.eval()
    torch.testing.assert_close(logits, model((images - 0.3) / 2.0), rtol=0, atol=EXACT)
    torch.testing.assert_close(logits, head(model)(features), rtol=0, atol=EXACT)
    assert torch.equal(predictions(model, TASK, images, batch_size=1), logits)
    assert not head(model)._forward_pre_hooks
    last = head_name(model)
    assert find_head(model, (channels, 32, 32)) == last == head_name(model)
    # In evaluation mode: BatchNorm in training takes away what a bias before it adds.
    model(images).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_network
def test_a_state_dict_is_all_of_a_network(name):
    model, other = built(name), built(name, seed=1)
    images = torch.rand(2, 1, 32, 32)
    model(images)
    assert not torch.equal(predictions(model, TASK, images), predictions(other, TASK, images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(predictions(model, TASK, images), predictions(other, TASK, images))


@each_network
def test_a_configuration_survives_json(name):
    chosen = config(name)
    stored = json.loads(json.dumps(asdict(chosen)))
    assert type(chosen)(**stored) == chosen


# Parameters that carry influence: behind a prefix, and such that a sum in place is half cached.
INNER = {
    "shortcut": ("resnet18", "layer4.0.downsample"),
    "last block": ("resnet18", "layer4.1.bn2"),
    "last convolution": ("vgg16_bn", "features.41"),
    "attention": ("vit", "encoder.layers.encoder_layer_1.self_attention.out_proj"),
    "class token": ("vit", "class_token"),
}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("name", "where"), INNER.values(), ids=INNER)
def test_influence_lies_on_any_layer(name, where, cache):
    model = built(name).double().eval()
    samples = Samples(torch.rand(2, 1, 32, 32, dtype=torch.float64), torch.tensor([0, 3]))
    gradients = oracles.gradients(model, TASK, samples, picked(model, (where,)))
    found = parameter_influence(
        model, TASK, samples, parameters=[where], damping=DAMPING, chunk=2, cache_prefix=cache
    )
    assert farness(found.scores, expected(gradients, "diagonal", "mean")) < 1e-9
    assert farness(found.scores, expected(gradients, "identity", "mean")) > 1e-3


@pytest.mark.parametrize("where", ["", "conv", "other.weight", "fc"])
@pytest.mark.parametrize("score", ["mean", "self"])
def test_influence_on_what_layers_share_is_that_of_all_its_places(where, score):
    torch.manual_seed(0)
    model = Shared().double()
    samples = Samples(torch.rand(5, 1, 8, 8, dtype=torch.float64), torch.arange(5) % 3)
    found = parameter_influence(
        model,
        TASK,
        samples,
        parameters=[where],
        damping=DAMPING,
        chunk=2,
        score=score,
        cache_prefix=True,
    )
    own = {
        "": list(model.parameters()),
        "conv": list(model.conv.parameters()),
        "other.weight": [model.conv.weight],
        "fc": list(model.fc.parameters()),
    }[where]
    gradients = oracles.gradients(model, TASK, samples, own)  # and the network is whole
    assert farness(found.scores, expected(gradients, "diagonal", score)) < 1e-9
    assert farness(found.scores, expected(gradients, "identity", score)) > 1e-3


def noise(n: int = 4) -> LabelledImages:
    draw = np.random.default_rng(0)
    return LabelledImages(
        images=draw.integers(0, 17, (n, 1, 32, 32)).astype(np.uint8),
        labels=draw.integers(0, 3, n),
        ids=np.array([f"{i}" for i in range(n)]),
        classes=("a", "b", "c", "d", "e"),
        scale=16.0,
        mean=(0.5,),
        std=(0.3,),
    )


RECIPE = training.Config(epochs=1, batch_size=2, learning_rate=0.01, warmup=0.0, shift=0)
CPU = torch.device("cpu")


# torch's attention has no fast form for stacked networks: it runs one after the other.
@pytest.mark.filterwarnings("ignore:There is a performance drop because.*dot_product")
@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn", "vit"])
def test_stacked_networks_train_as_alone(name):
    data, rows, seeds = noise(), [0, 1, 2, 3], (0, 1)
    stacked, alone, fresh = ([built(name, seed=s) for s in seeds] for _ in range(3))
    list(ensemble.fit(stacked, data, rows, RECIPE, seeds=seeds, device=CPU))
    for network, seed in zip(alone, seeds, strict=True):
        list(training.fit(network, data, rows, RECIPE, seed=seed, device=CPU))
    # Float32 through many layers, each normalised over few numbers: 0.4 % apart was seen.
    for k, before in enumerate(fresh):
        assert moved(stacked[k], alone[k]) < 0.05 * moved(alone[k], before)


def test_stacked_networks_with_layers_in_two_places_train_as_alone():
    stacked, alone, fresh = ([], [], [])
    for networks in (stacked, alone, fresh):
        for seed in (0, 1):
            torch.manual_seed(seed)
            networks.append(Shared(classes=5))
    seeds = (0, 1)
    list(ensemble.fit(stacked, noise(), [0, 1, 2, 3], RECIPE, seeds=seeds, device=CPU))
    for k, seed in enumerate(seeds):
        list(training.fit(alone[k], noise(), [0, 1, 2, 3], RECIPE, seed=seed, device=CPU))
        assert moved(stacked[k], alone[k]) < 0.01 * moved(alone[k], fresh[k])
        assert stacked[k].fc is stacked[k].classifier[2]


def moved(some: nn.Module, others: nn.Module) -> float:
    pairs = zip(some.parameters(), others.parameters(), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def test_dropout_cannot_be_stacked():
    networks = [vit.build(replace(SMALL_VIT, dropout=0.5), (1, 32, 32), 5) for _ in range(2)]
    with pytest.raises(RuntimeError, match="random"):
        next(ensemble.fit(networks, noise(), [0, 1], RECIPE, seeds=(0, 1), device=CPU))


def test_resnet18_with_the_stem_of_imagenet_is_torchvision_s():
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    ours = resnet18.build(resnet18.Config(stem="imagenet"), (3, 40, 32), 5).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 40, 32)
    torch.testing.assert_close(ours(images), theirs(images))
    # The small stem differs in the first layer alone.
    small = {n: p.shape for n, p in built("resnet18", 3).named_parameters()}
    shapes = {n: p.shape for n, p in ours.named_parameters()}
    assert {n for n in shapes if shapes[n] != small[n]} == {"conv1.weight"}
    assert small["conv1.weight"] == (64, 3, 3, 3)


@pytest.mark.parametrize(("stem", "size"), [("small", 32), ("imagenet", 8)])
def test_the_stem_fixes_the_resolution(stem, size):
    model = resnet18.build(resnet18.Config(stem=stem), (1, 32, 32), 5)
    seen: list[Tensor] = []
    model.layer1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    predictions(model, TASK, torch.rand(1, 1, 32, 32))
    assert seen[0].shape == (1, 64, size, size)


def test_vgg16_bn_has_the_feature_layers_of_torchvision():
    with torch.device("meta"):
        theirs = torchvision.models.vgg16_bn().features.state_dict()
    ours = built("vgg16_bn", 3)
    shapes = {name: tensor.shape for name, tensor in ours.features.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.items()}
    assert sum(p.numel() for p in ours.parameters()) == 14_723_136 + 512 * 5 + 5


@pytest.mark.parametrize("size", [(32, 33), (48, 64)])
def test_vgg16_bn_takes_larger_images(size):
    model = vgg16_bn.build(vgg16_bn.Config(), (1, *size), 3)
    assert predictions(model, TASK, torch.rand(1, 1, *size)).shape == (1, 3)


def test_every_setting_of_a_vit_counts():
    chosen = vit.Config(patch_size=8, layers=3, heads=2, width=8, mlp_width=12, dropout=0.5)
    model = vit.build(chosen, (1, 32, 32), 5)
    theirs = torchvision.models.VisionTransformer(32, 8, 3, 2, 8, 12, dropout=0.5, num_classes=5)
    shapes = {n: p.shape for n, p in model.named_parameters()}
    assert shapes.pop("conv_proj.weight") == (8, 1, 8, 8)
    wanted = {n: p.shape for n, p in theirs.named_parameters() if n != "conv_proj.weight"}
    assert shapes == wanted
    assert {layer.num_heads for layer in model.encoder.layers} == {2}
    nn.init.normal_(head(model).weight)
    images = torch.rand(1, 1, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("name", "first", "inputs"),
    [
        ("resnet18", "conv1", 9 * 64 / 2),  # He's, for what leaves the layer
        ("vgg16_bn", "features.0", 9 * 64 / 2),
        ("vit", "conv_proj", 16 * 16),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_layer_starts_as_in_torchvision(name, first, inputs, channels):
    layer = built(name, channels).get_submodule(first)
    deviation = (inputs * (channels if name == "vit" else 1)) ** -0.5
    # Of 576 draws or more: 3 % for a standard error.
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.12)
    assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(
    ("name", "changes", "image", "message"),
    [
        ("vgg16_bn", {}, (1, 31, 32), "needs images of at least 32×32, got 31×32"),
        ("vit", {}, (1, 32, 16), "needs square images, got 32×16"),
        ("vit", {}, (1, 36, 36), r"patch_size must divide .* images \(36\), got 16"),
    ],
)
def test_images_that_do_not_fit_are_refused(name, changes, image, message):
    with pytest.raises(ValueError, match=message):
        discovery.load("imu.models", name).build(config(name), image, 5)


@pytest.mark.parametrize(
    ("chosen", "field", "value"),
    [
        (resnet18.Config(), "stem", "large"),
        (SMALL_VIT, "patch_size", 0),
        (SMALL_VIT, "layers", 0),
        (SMALL_VIT, "heads", 0),
        (SMALL_VIT, "heads", 3),
        (SMALL_VIT, "mlp_width", 0),
        (SMALL_VIT, "dropout", 1.0),
    ],
)
def test_settings_out_of_range_are_refused(chosen, field, value):
    message = "width must be a multiple of heads" if value == 3 else f"{field} must be .*{value}"
    with pytest.raises(ValueError, match=message):
        replace(chosen, **{field: value})


def test_torchvision_is_not_imported_unasked():
    code = "import imu.models, imu.models.resnet_small, sys; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# The head.


class Net(nn.Module):
    """The head is defined first, an auxiliary layer with as many outputs last."""

    def __init__(self, after: str = "nothing", width: int = 5, classes: int = 5):
        super().__init__()
        self.fc = nn.Linear(width, classes)
        self.log_softmax = nn.LogSoftmax(-1)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU())
        self.extra = nn.Linear(width, classes)
        self.other = nn.Linear(width, classes)
        self.attention = nn.MultiheadAttention(width, 1)
        self.scale = nn.Parameter(torch.ones(()))
        self.after = after
        for parameter in (*self.fc.parameters(), *self.other.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor):
        features = self.body(images)
        features = features + self.extra(features)
        logits = self.fc(features)
        return {
            "nothing": lambda: logits,
            "view": lambda: logits[:, None].view(-1, 1, 5)[:, 0],
            "copy": lambda: logits.clone().contiguous(),
            "float": lambda: logits.double(),
            "pair": lambda: (features, logits),
            "dictionary": lambda: {"features": features, "logits": logits},
            "log_softmax": lambda: self.log_softmax(logits),
            "function": lambda: logits.log_softmax(-1),
            "in place": lambda: logits.mul_(2),
            "relu": lambda: logits.relu(),
            "one": lambda: logits * self.scale,
            "temperature": lambda: logits / 2,
            "second path": lambda: logits + self.other(features),
            "exchanged": lambda: logits.flip(0),
            "twice": lambda: self.fc(features),
            "two": lambda: (logits, self.other(features)),
            "functional": lambda: nn.functional.linear(features, self.fc.weight, self.fc.bias),
        }[self.after]()


IMAGE = (1, 2, 3)


@pytest.mark.parametrize("after", ["nothing", "view", "copy", "float", "pair", "dictionary"])
def test_the_head_is_what_predicts_wherever_it_is_defined(after):
    model = Net(after)
    assert head_name(model) == "attention.out_proj"  # by definition alone
    assert find_head(model, IMAGE) == "fc"
    assert head_name(model) == "fc"
    assert head(model) is model.fc
    assert not any(m._forward_hooks for m in model.modules())
    assert all(m.training for m in model.modules())


NO_HEAD = {
    "log_softmax": r"no linear head: .*the last layer that ran is 'log_softmax' \(LogSoftmax\)",
    "function": "the last layer that ran is 'fc' .*Name influence.parameters, and use methods that",
    "in place": "no linear head",
    "relu": "no linear head",
    "one": "no linear head",
    "temperature": "no linear head",
    "second path": "no linear head",
    "exchanged": "no linear head",
    "twice": "'fc' is called 2 times in one pass",
    "two": "several linear layers: name one of fc, other",
}


@pytest.mark.parametrize("after", NO_HEAD)
def test_what_is_no_head_is_said_and_remembered(after):
    model = Net(after)
    assert has_head(model)
    for ask in (lambda: find_head(model, IMAGE), lambda: head_name(copy.deepcopy(model))):
        with pytest.raises(ValueError, match=NO_HEAD[after]):
            ask()
    assert not has_head(model)
    if after != "two":
        with pytest.raises(ValueError, match=r"Name influence\.parameters, and use methods that"):
            features_and_logits(model, TASK, torch.rand(2, *IMAGE))


def test_a_network_without_a_head_has_influence_on_its_parameters():
    model = Net("temperature").double()
    nn.init.normal_(model.fc.weight)
    with pytest.raises(ValueError, match="no linear head"):
        find_head(model, IMAGE)
    samples = Samples(torch.rand(4, *IMAGE, dtype=torch.float64), torch.tensor([0, 3, 1, 0]))
    found = parameter_influence(model, TASK, samples, parameters=["body"], damping=DAMPING, chunk=2)
    gradients = oracles.gradients(model, TASK, samples, picked(model, ("body",)))
    assert farness(found.scores, expected(gradients, "diagonal", "mean")) < EXACT


def test_a_shared_weight_is_no_head():
    model = nn.Sequential(nn.Embedding(4, 5), nn.ReLU(), nn.Linear(5, 4))
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    assert find_head(model, tokens) == "2"
    model[0].weight = model[2].weight
    for name in (None, "2"):
        with pytest.raises(ValueError, match=r"'2' shares its weight with '0'.*Name influence\."):
            find_head(model, tokens, name)


OTHERWISE = {"parametrised": parametrizations.weight_norm, "hooked": weight_norm}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("how", OTHERWISE)
def test_a_head_that_computes_its_weight_is_refused(how):
    """What is written into its weight, by a mask for example, would be lost at the next pass."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), OTHERWISE[how](nn.Linear(4, 3)))
    message = "the head '2' computes its weight from others.*remove_parametrizations"
    with pytest.raises(ValueError, match=message):
        head(model)  # the last layer that was defined
    for name in (None, "2"):
        with pytest.raises(ValueError, match=message):
            find_head(model, IMAGE, name)
    assert not has_head(model)


@pytest.mark.parametrize(
    ("name", "after", "message"),
    [
        ("fc", "nothing", ""),
        ("fc", "log_softmax", ""),
        ("fc", "two", ""),
        ("other", "two", ""),
        ("fc", "temperature", "output of 'fc' is not the prediction of Net"),
        ("extra", "nothing", "output of 'extra' is not the prediction of Net: the last layer .*fc"),
        ("body", "nothing", r"nn\.Linear of Net \(fc, body\.1, .*\), but 'body' is a Sequential"),
        ("last", "nothing", r"\(fc, body\.1, extra, .*'last' is not part of the network"),
        ("attention.out_proj", "nothing", "'attention.out_proj' is not called when Net predicts"),
        ("fc", "twice", "'fc' is called 2 times"),
        ("fc", "functional", "called|not the prediction"),
    ],
)
def test_a_head_can_be_named(name, after, message):
    model = Net(after)
    if not message:
        assert find_head(model, IMAGE, name) == name == head_name(model)
        return
    with pytest.raises(ValueError, match=message):
        find_head(model, IMAGE, name)
    assert head_name(model) == "attention.out_proj"  # a wrong name is not remembered


@pytest.mark.parametrize(
    ("model", "image", "name"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3)), IMAGE, "3"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Dropout()), IMAGE, "1"),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6, 3)), IMAGE, "2"),
        (nn.Sequential(nn.Identity(), Net()), IMAGE, "1.fc"),
        (nn.Linear(4, 3), (4,), ""),
        (Tokens(), torch.zeros(2, 6, dtype=torch.int64), "head"),
    ],
    ids=[
        "classifier",
        "dropout after it",
        "input changed in place",
        "wrapped",
        "linear",
        "sequences",
    ],
)
def test_the_head_is_found_in(model, image, name):
    assert find_head(model, image) == name == head_name(model)
    assert isinstance(head(model), nn.Linear)


def test_a_head_on_positions_laid_out_flat_is_found():
    class Flat(Tokens):
        def forward(self, tokens: Tensor) -> Tensor:
            features = self.inner(self.hidden(self.embedding(tokens)))  # (n, t, width)
            return self.head(features.flatten(0, 1)).view(*tokens.shape, -1)

    assert find_head(Flat(), torch.zeros(2, 6, dtype=torch.int64)) == "head"


def test_a_convolution_is_no_head():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"no linear head: .*ran is '2' \(Flatten\)"):
        find_head(model, IMAGE)
    with pytest.raises(ValueError, match=r"nn\.Linear of Sequential \(none\), but '0' is a Conv2d"):
        find_head(model, IMAGE, "0")


def test_what_is_remembered_goes_with_the_network_and_not_into_its_weights():
    model, plain = Net(), Net()
    find_head(model, IMAGE)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert head_name(copy.deepcopy(model)) == "fc"
    model.load_state_dict(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    assert head_name(model) == "fc"
    model.fc = nn.Linear(5, 7)
    assert head(model) is model.fc
    model.fc = nn.Sequential(model.fc)
    with pytest.raises(ValueError, match=r"the head of Net, 'fc', is no nn\.Linear any more"):
        head(model)


def test_finding_the_head_changes_no_state():
    model = built("resnet18")
    model.bn1.eval()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    find_head(model, (1, 32, 32))
    assert torch.equal(torch.rand(2), drawn)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert (model.training, model.bn1.training) == (True, False)
    assert all(p.grad is None for p in model.parameters())


def test_a_head_that_runs_twice_gives_no_features():
    with pytest.raises(ValueError, match=r"'head' must be called once per pass, got 4 calls in 2"):
        features_and_logits(Twice(), TASK, torch.rand(3, 5), batch_size=2)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.head(images))


# Networks of the user.

CODE = """
from functools import partial
from torch import nn

def network(width, classes=4, last="linear"):
    layers = [nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, nn.LogSoftmax(1)) if last == "softmax" else nn.Sequential(*layers)

def nothing():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 4)
    def forward(self, images):
        return super().forward(images[:, 0, 0])

short = partial(network, 2)
number = 3
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the module ``theirs.nets``, which ``own/packages.py`` allows."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "packages.py").write_text('ALLOWED = ["theirs"]')
    (tmp_path / "theirs").mkdir()
    for name, code in (("nets", CODE), ("broken", "import no_such_package"), ("__init__", "")):
        (tmp_path / "theirs" / f"{name}.py").write_text(code)
    (tmp_path / "theirs" / "entry.py").write_text("from theirs.nets import network")
    (tmp_path / "theirs" / "loose.py").write_text(
        "import os\nfrom functools import partial\nfrom os import system\n"
        "later = partial(partial(system))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "theirs" / "nets.py"
    for name in [name for name in sys.modules if name.split(".")[0] in ("own", "theirs")]:
        del sys.modules[name]


def of(function: str, **fields) -> custom.Config:
    return custom.Config(factory=f"theirs.{function}", **fields)


@pytest.mark.usefixtures("factory")
def test_a_network_of_the_user_is_built():
    model = custom.build(of("nets:network", arguments={"width": 5}), IMAGE, 4)
    assert (model[1].out_features, head_name(model)) == (5, "3")
    assert model.training
    assert head_name(custom.build(of("nets:Net"), IMAGE, 4)) == ""
    assert custom.build(of("nets:short"), IMAGE, 4)[1].out_features == 2


@pytest.mark.usefixtures("factory")
def test_the_head_of_a_user_s_network_may_be_missing_or_named():
    arguments = {"width": 5, "last": "softmax"}
    model = custom.build(of("nets:network", arguments=arguments), IMAGE, 4)
    with pytest.raises(ValueError, match=r"ran is '4' \(LogSoftmax\)"):
        head(model)
    named = of("nets:network", arguments=arguments, head="3")
    assert head_name(custom.build(named, IMAGE, 4)) == "3"
    with pytest.raises(ValueError, match=r"nn\.Linear of Sequential \(1, 3\), but '2' is a ReLU"):
        custom.build(replace(named, head="2"), IMAGE, 4)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("missing:network", {}, "no module 'theirs.missing' in the current folder"),
        ("nets.more:network", {}, "no module 'theirs.nets.more'|is not a package"),
        ("broken:network", {}, "importing theirs.broken failed: No module named 'no_such_package'"),
        ("nets:other", {}, r"nets\.py has no function 'other'"),
        ("nets:number", {}, r"nets\.py has no function 'number'"),
        ("nets:network", {}, "does not take network.arguments: missing .*'width'"),
        ("nets:network", {"width": 5, "depth": 1}, "does not take .* 'depth'"),
        ("nets:nothing", {}, "must return an nn.Module, got int"),
        ("nets:pair", {}, r"must give \(1, 4\) for one image, one number per class, got tuple"),
        ("nets:network", {"width": 5, "classes": 3}, r"must give \(1, 4\) .*got \(1, 3\)"),
    ],
)
@pytest.mark.usefixtures("factory")
def test_what_is_wrong_with_a_user_s_network_is_said(function, arguments, message):
    with pytest.raises(ValueError, match=f"theirs.{function.split(':')[0]}.*({message})"):
        custom.build(of(function, arguments=arguments), IMAGE, 4)


@pytest.mark.usefixtures("factory")
def test_an_image_that_a_user_s_network_cannot_take_is_named():
    with pytest.raises(
        ValueError, match=r"cannot take an image of shape \(1, 9, 9\): RuntimeError"
    ):
        custom.build(of("nets:network", arguments={"width": 5}), (1, 9, 9), 4)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("os:system", "os"),
        ("this:s", "this"),
        ("theirs_too.nets:network", "theirs_too.nets"),
        ("torch.hub:load", "torch.hub"),
        ("theirs.loose:system", "posix"),
        ("theirs.loose:later", "posix"),
    ],
)
def test_only_what_the_owner_allows_is_imported_and_called(factory, tmp_path, name, module):
    said = rf"factory {name}: the module {module} is neither in own/ nor named in ALLOWED of"
    touched = tmp_path / "touched"
    evil = custom.Config(factory=name, arguments={"command": f"touch {touched}"})
    for call in (custom.source_sha256, lambda config: custom.build(config, IMAGE, 4)):
        with pytest.raises(ValueError, match=said):
            call(evil)
    assert not touched.exists()
    assert not {"this", "theirs_too"} & sys.modules.keys()
    (tmp_path / "own" / "packages.py").write_text("ALLOWED = []")
    del sys.modules["own.packages"]
    with pytest.raises(ValueError, match=r"allowed are own, imu\.models$"):
        custom.build(of("nets:network", arguments={"width": 5}), IMAGE, 4)


@pytest.mark.parametrize("factory", ["net", "a.b:", ":f", "a:b:c", "a..b:f", "a b:f", "a:f()", ""])
def test_a_malformed_factory_is_refused(factory):
    with pytest.raises(ValueError, match=r"factory must be like package\.module:function, got"):
        custom.Config(factory=factory)


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, torch.ones(2), float("nan"), float("inf")])
def test_arguments_must_be_json(value):
    with pytest.raises(ValueError, match="arguments must be JSON values"):
        custom.Config(factory="a:f", arguments={"x": value})


def test_the_source_of_a_user_s_network_is_told_apart(factory):
    before = hashlib.sha256(factory.read_bytes()).hexdigest()
    for function in ("nets:network", "nets:Net", "nets:short", "entry:network"):
        assert custom.source_sha256(of(function)) == before
    factory.write_text(CODE + "\n")
    assert custom.source_sha256(of("nets:network")) != before
    factory.unlink()
    with pytest.raises(ValueError, match=r"no source file of theirs\.nets:network"):
        custom.source_sha256(of("nets:network"))
