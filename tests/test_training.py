from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from imu import discovery, training
from imu.cost import FlopCounter, rte
from imu.datasets import LabelledImages
from imu.models import head, head_name, only_trains, resnet_small, trainable
from imu.objective import Classification, features_and_logits, predictions
from tests import oracles

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


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_shifts_equal_the_loop(pixels):
    images = torch.randint(1, 17, (6, 2, 5, 4), generator=torch.Generator().manual_seed(1))
    images = images.to(torch.uint8)
    drawn = torch.randint(0, 2 * pixels + 1, (2, 6), generator=torch.Generator().manual_seed(9))
    found = training.shift_randomly(images, pixels, torch.Generator().manual_seed(9))
    assert found.dtype == torch.uint8
    assert torch.equal(found, oracles.shifted(images, *(drawn - pixels).tolist()))


def test_shift_0_changes_nothing_and_draws_nothing():
    images, generator = torch.randint(0, 17, (3, 1, 4, 4)), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(training.shift_randomly(images, 0, generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_seed_fixes_the_weights(shift):
    data, config = separable(), replace(CONFIG, shift=shift)
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
    images, labels = training.pixels(data, list(range(60, 80)), CPU)
    task = Classification(mean=data.mean, std=data.std, scale=data.scale)
    logits = predictions(model, task, images)
    assert (logits.argmax(1) == labels).double().mean() >= 0.9


@pytest.mark.parametrize("field", ["momentum", "weight_decay", "warmup", "shift", "batch_size"])
def test_every_setting_has_an_effect(field):
    data, config = separable(), replace(CONFIG, batch_size=10)
    value = {"momentum": 0.5, "weight_decay": 0.1, "warmup": 0.6, "shift": 2, "batch_size": 20}
    other = replace(config, **{field: value[field]})
    rows = list(range(80))
    assert not same(trained(data, rows, config)[0], trained(data, rows, other)[0])


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
        ("weight_decay", -1.0),
        ("shift", -1),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value}"):
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


@pytest.mark.parametrize("name", discovery.names("imu.models"))
def test_features_are_the_input_of_the_head(name):
    module = discovery.load("imu.models", name)
    model = module.build(module.Config(), (3, 8, 8), 5).double()
    images = torch.randn(7, 3, 8, 8, dtype=torch.float64)
    model(images)  # moves the BatchNorm statistics away from 0 and 1
    task = Classification(mean=0.3, std=2.0)
    features, logits = features_and_logits(model, task, images, batch_size=3)
    assert logits.shape == (7, 5)
    assert not logits.requires_grad
    model.eval()
    # 1e-12: batches of another size may add up in another order.
    expected = model((images - 0.3) / 2.0)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(logits, head(model)(features), rtol=0, atol=1e-12)
    assert torch.equal(predictions(model, task, images, batch_size=3), logits)
    assert not head(model)._forward_pre_hooks


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
