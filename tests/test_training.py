import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from imu import training
from imu.cost import FlopCounter
from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.efficiency import rte
from imu.models import head, head_name, only_trains, resnet_small, trainable
from imu.objectives import features_and_logits, predictions
from imu.objectives.classification import Classification, described
from tasks.train import operations

torch.set_num_threads(1)
CPU = torch.device("cpu")
TASK = Classification()  # inputs are normalised already
CONFIG = training.Config(epochs=1, batch_size=16, learning_rate=0.1, warmup=0.3, shift=0)


def separable(n: int = 80) -> LabelledImages:
    """Bright left half or bright right half, with noise."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, n)
    images = draw.integers(0, 5, (n, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 4] += 10
    return LabelledImages(
        images=images.astype(np.uint8),
        labels=labels,
        ids=np.array([f"{i}" for i in range(n)]),
        classes=("left", "right"),
        scale=16.0,
        mean=(0.4,),
        std=(0.3,),
    )


def small(classes: int = 2, width: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return resnet_small.build(resnet_small.Config(width=width), (1, 8, 8), classes)


def trained(data: LabelledImages, rows: list[int], config=CONFIG, seed: int = 0):
    model = small()
    epochs = list(training.fit(model, data, rows, config, seed=seed, device=CPU))
    return model, epochs


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("change", [{}, {"shift": 1}, {"shift": 1, "flip": True}])
def test_a_seed_fixes_the_weights(change):
    data, config = separable(), replace(CONFIG, **change)
    first, again, other = (trained(data, list(range(80)), config, seed)[0] for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_only_the_given_rows_are_trained_on():
    data, rows = separable(), list(range(40))
    changed = replace(data, images=data.images.copy(), labels=data.labels.copy())
    changed.images[40:] = 16
    changed.labels[40:] = 0
    assert same(trained(data, rows)[0], trained(changed, rows)[0])


def test_a_separable_problem_is_learned():
    data = separable()
    model, epochs = trained(data, list(range(60)), replace(CONFIG, epochs=12))
    assert [epoch.epoch for epoch in epochs] == list(range(1, 13))
    assert epochs[-1].loss < epochs[0].loss / 2
    images, labels = pixels(data, list(range(60, 80)), CPU)
    task = Classification(mean=data.mean, std=data.std, scale=data.scale)
    logits = predictions(model, task, images)
    assert (logits.argmax(1) == labels).double().mean() >= 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"warmup": 0.6},
        {"label_smoothing": 0.2},
        {"shift": 2},
        {"flip": True},
        {"batch_size": 20},
        {"precision": "bfloat16"},
    ],
)
def test_every_setting_has_an_effect(change):
    data, config = separable(), replace(CONFIG, batch_size=10)
    other = replace(config, **change)
    rows = list(range(80))
    assert not same(trained(data, rows, config)[0], trained(data, rows, other)[0])


def colour() -> LabelledImages:
    data = separable()
    images = np.concatenate([data.images, data.images[::-1], 16 - data.images], 1)
    return replace(data, images=images, mean=(0.4, 0.4, 0.6), std=(0.3, 0.3, 0.3))


class Wide(nn.Module):
    """Three channels; everything after the images is float64. Remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = resnet_small.build(resnet_small.Config(width=2), (3, 8, 8), 2).double()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        layout = torch.channels_last
        weight = self.network.blocks[0].conv1.weight
        self.seen.append(
            (images.is_contiguous(memory_format=layout), weight.is_contiguous(memory_format=layout))
        )
        return self.network(images.double())


@pytest.mark.parametrize("shift", [0, 1])
def test_channels_last_is_a_layout_alone(shift):
    models = []
    for last in (False, True):
        config = replace(CONFIG, shift=shift, channels_last=last)
        model = Wide()
        list(training.fit(model, colour(), list(range(80)), config, seed=0, device=CPU))
        assert set(model.seen) == {(last, last)}
        assert all(tensor.is_contiguous() for tensor in model.state_dict().values())
        models.append(model)
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        # Five steps of float64; sums in another order are 1e-16 off.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_bfloat16_computes_in_it_and_keeps_float32():
    model, kinds = small(), set()
    model.blocks[0].conv1.register_forward_hook(lambda _, given, out: kinds.add(out.dtype))
    config = replace(CONFIG, precision="bfloat16", epochs=12)
    epochs = list(training.fit(model, separable(), list(range(60)), config, seed=0, device=CPU))
    assert kinds == {torch.bfloat16}
    assert all(tensor.dtype != torch.bfloat16 for tensor in model.state_dict().values())
    _, expected = trained(separable(), list(range(60)), replace(config, precision="float32"))
    # bfloat16 has 8 bits: what one step reads is off by a percent at most.
    assert epochs[0].loss == pytest.approx(expected[0].loss, rel=0.01)
    assert epochs[-1].loss < epochs[0].loss / 2


def test_label_smoothing_is_that_of_the_definition():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1, 0])
    spread = 0.7 * F.one_hot(labels, 3) + 0.3 / 3
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    found = training.cross_entropy(logits, labels, replace(CONFIG, label_smoothing=0.3))
    torch.testing.assert_close(found, expected)


def test_a_compiled_network_trains_the_same_and_stays_itself(monkeypatch):
    compiled, truly = [], torch.compile

    def compiling(network):
        compiled.append(network)
        return truly(network, backend="eager")

    monkeypatch.setattr(torch, "compile", compiling)
    config = replace(CONFIG, epochs=2, shift=1)
    model, _ = trained(separable(), list(range(80)), replace(config, compile=True))
    assert compiled == [model]
    assert model.state_dict().keys() == small().state_dict().keys()
    assert same(model, trained(separable(), list(range(80)), config)[0])


def test_operations_of_training_are_those_counted_along():
    data, config = separable(), replace(CONFIG, epochs=2)
    model = small()
    before = copy.deepcopy(model)
    with FlopCounter() as counter:
        list(training.fit(copy.deepcopy(model), data, list(range(70)), config, seed=0, device=CPU))
    about = described(data, None, None)
    found = operations(model, data, list(range(70)), about, config, CPU)
    assert found == counter.total > 0
    assert same(model, before)
    assert model.training


def test_a_warmup_of_exactly_one_step_works():
    trained(separable(), list(range(80)), replace(CONFIG, warmup=0.2))  # 5 steps


def test_a_diverging_run_names_epoch_and_step():
    config = replace(CONFIG, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1, step [2-5] of 5;"):
        trained(separable(), list(range(80)), config)


def test_fewer_samples_than_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"batch_size must be <= .* \(15\), got 16"):
        trained(separable(), list(range(15)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("warmup", -0.1),
        ("label_smoothing", 1.0),
        ("memory_share", 1.1),
        ("memory_share", -0.1),
        ("precision", "float16"),
        ("weight_decay", -1.0),
        ("shift", -1),
        ("workers", -1),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value!r}"):
        replace(CONFIG, **{field: value})


@pytest.mark.parametrize("which", ["forward", "backward", "head only"])
def test_counted_operations_equal_those_of_torch(which):
    model, images = small(classes=5, width=3), torch.randn(4, 1, 8, 8)

    def work() -> None:
        if which == "forward":
            with torch.no_grad():
                model(images)
        elif which == "backward":
            model(images).sum().backward()
        else:
            with only_trains(model, head(model).parameters()):
                model(images).sum().backward()

    with FlopCounterMode(display=False) as judge:
        work()
    with FlopCounter() as counter:
        work()
    model(images)  # after the block nothing is counted
    assert counter.total == judge.get_total_flops() > 0


def test_rte_is_a_quotient_of_positive_costs():
    assert rte(6.0, 2.0) == 3.0
    for costs in [(0.0, 1.0), (1.0, 0.0), (1.0, float("nan"))]:
        with pytest.raises(ValueError, match="must be > 0"):
            rte(*costs)


@pytest.mark.parametrize("mode", ["training", "evaluation", "training with BatchNorm frozen"])
def test_features_leave_every_layer_in_its_mode(mode):
    model = small()
    model.train(mode != "evaluation")
    if "frozen" in mode:
        model.stem[1].eval()
    before = {name: module.training for name, module in model.named_modules()}
    features_and_logits(model, TASK, torch.randn(2, 1, 8, 8))
    assert {name: module.training for name, module in model.named_modules()} == before


def test_the_head_is_the_last_linear_layer():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU())
    assert head_name(model) == "2"
    assert head(model) is model[2]


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_given_parameters_train_inside_the_block(fails):
    model = small()
    model.stem[0].weight.requires_grad_(False)  # was frozen before: stays so
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    assert "stem.0.weight" not in trainable(model)
    assert len(trainable(model)) == len(before) - 1
    try:
        with only_trains(model, head(model).parameters()):
            inside = set(trainable(model))
            if fails:
                raise InterruptedError
    except InterruptedError:
        pass
    assert inside == {"head.weight", "head.bias"}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_a_network_without_a_linear_layer_has_no_head():
    with pytest.raises(ValueError, match=r"Sequential has no nn\.Linear layer"):
        head(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()))
