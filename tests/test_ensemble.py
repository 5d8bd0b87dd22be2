from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imu import ensemble, training
from imu.datasets import LabelledImages
from imu.models import resnet_small
from imu.objectives import Samples, margins
from imu.objectives.classification import Classification

torch.set_num_threads(1)
CPU = torch.device("cpu")
CONFIG = training.Config(epochs=2, batch_size=16, learning_rate=0.1, warmup=0.3, shift=1)
SEEDS = (5, 0, 9)
ROWS = list(range(4, 54))  # three batches and a remainder


class Double(nn.Module):
    """Images come in float32; everything after them is float64."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.double()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.double())


def noise(channels: int = 1, n: int = 60) -> LabelledImages:
    draw = np.random.default_rng(0)
    return LabelledImages(
        images=draw.integers(0, 17, (n, channels, 6, 4)).astype(np.uint8),
        labels=draw.integers(0, 3, n),
        ids=np.array([f"{i}" for i in range(n)]),
        classes=("a", "b", "c"),
        scale=16.0,
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
    )


def networks(channels: int = 1, seeds=SEEDS) -> list[nn.Module]:
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        # Training has to leave evaluation mode.
        found.append(
            Double(resnet_small.build(resnet_small.Config(width=2), (channels, 6, 4), 3)).eval()
        )
    return found


def one_by_one(data: LabelledImages, config=CONFIG, seeds=SEEDS):
    models = networks(data.images.shape[1])
    epochs = [
        list(training.fit(model, data, ROWS, config, seed=seed, device=CPU))
        for model, seed in zip(models, seeds, strict=True)
    ]
    return models, epochs


def stacked(data: LabelledImages, config=CONFIG, seeds=SEEDS, rows=ROWS, **options):
    models = networks(data.images.shape[1])
    fit = ensemble.fit(models, data, rows, config, seeds=seeds, device=CPU, **options)
    return models, list(fit)


def farness(some: list[nn.Module], others: list[nn.Module]) -> float:
    """Largest difference between tensors over the largest value of each."""
    values = []
    for one, other in zip(some, others, strict=True):
        assert one.state_dict().keys() == other.state_dict().keys()
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            values.append(((a - b).abs().max() / a.abs().max()).item())
    return max(values)


# Six steps of float64; sums in another order are 1e-16 off, and training amplifies that.
CLOSE = 1e-12


@pytest.mark.parametrize("at_once", [1, 2, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_members_equal_networks_trained_one_by_one(channels, at_once):
    data = noise(channels)
    expected, epochs = one_by_one(data)
    found, means = stacked(data, at_once=at_once)
    assert farness(expected, found) < CLOSE
    for mean, each in zip(means, zip(*epochs, strict=True), strict=True):
        assert mean.epoch == each[0].epoch
        assert mean.learning_rate == each[0].learning_rate
        # Reported in float32 by both.
        assert mean.loss == pytest.approx(np.mean([e.loss for e in each]), rel=1e-6)
        assert mean.accuracy == pytest.approx(np.mean([e.accuracy for e in each]), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"momentum": 0.0},
        {"weight_decay": 0.1},
        {"shift": 0},
        {"flip": True},
        {"shift": 0, "flip": True},
        {"label_smoothing": 0.2},
        {"warmup": 0.6},
        {"batch_size": 25},
        {"learning_rate": 0.3},
    ],
)
def test_members_follow_every_setting(change):
    data, config = noise(), replace(CONFIG, **change)
    found, _ = stacked(data, config)
    assert farness(one_by_one(data, config)[0], found) < CLOSE
    assert farness(one_by_one(data)[0], found) > 1e-3


@pytest.mark.parametrize(
    "change",
    [{"channels_last": True}, {"memory_share": 0.0, "workers": 1}, {"compile": True}],
)
def test_ways_to_compute_change_no_result(change, monkeypatch):
    if "compile" in change:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    data, config = noise(3), replace(CONFIG, flip=True)
    assert farness(stacked(data, config)[0], stacked(data, replace(config, **change))[0]) < CLOSE


def test_members_are_trained_on_parts_of_their_own():
    data, draw = noise(), torch.Generator().manual_seed(1)
    parts = [torch.randperm(len(ROWS), generator=draw)[:33] for _ in SEEDS]
    expected = networks()
    for model, part, seed in zip(expected, parts, SEEDS, strict=True):
        own = [ROWS[at] for at in part.tolist()]
        list(training.fit(model, data, own, CONFIG, seed=seed, device=CPU))
    found, _ = stacked(data, parts=parts, at_once=2)
    assert farness(expected, found) < CLOSE
    assert farness(expected, stacked(data, parts=parts[::-1])[0]) > 1e-3
    for wrong in (parts[:2], [*parts[:2], parts[2][:-1]]):
        with pytest.raises(ValueError, match="parts must be one per network and equally long"):
            stacked(data, parts=wrong)


def test_bfloat16_is_followed():
    """Members agree with networks trained one by one in distribution, not in their weights."""
    found = {}
    for precision in ("float32", "bfloat16"):
        models = [network.network.float() for network in networks(3)]
        config = replace(CONFIG, batch_size=50, precision=precision)
        epochs = list(ensemble.fit(models, noise(3), ROWS, config, seeds=SEEDS, device=CPU))
        found[precision] = models, epochs
    (exact, right), (models, epochs) = found["float32"], found["bfloat16"]
    assert farness(exact, models) > 1e-4
    assert all(t.dtype != torch.bfloat16 for m in models for t in m.state_dict().values())
    for one, other in zip(right, epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.01)  # bfloat16 has 8 bits


def test_every_member_follows_its_own_seed():
    data = noise()
    expected, _ = one_by_one(data)
    other, _ = stacked(data, seeds=(5, 1, 9))
    assert farness(expected[::2], other[::2]) < CLOSE
    assert farness(expected[1:2], other[1:2]) > 1e-3


def test_networks_are_up_to_date_after_every_epoch():
    data = noise()
    expected, found = networks(), networks()
    single = [
        training.fit(m, data, ROWS, CONFIG, seed=s, device=CPU)
        for m, s in zip(expected, SEEDS, strict=True)
    ]
    together = ensemble.fit(found, data, ROWS, CONFIG, seeds=SEEDS, device=CPU)
    for _ in range(CONFIG.epochs):
        next(together)
        for progress in single:
            next(progress)
        assert farness(expected, found) < CLOSE


def test_only_the_given_rows_are_trained_on():
    data = noise()
    outside = [i for i in range(60) if i not in ROWS]
    changed = replace(data, images=data.images.copy(), labels=data.labels.copy())
    changed.images[outside] = 16
    changed.labels[outside] = 0
    assert farness(stacked(data)[0], stacked(changed)[0]) == 0.0


def test_networks_do_not_share_memory_afterwards():
    for network in stacked(noise())[0]:
        assert network.training
        for tensor in network.state_dict().values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_member_that_diverges_is_named():
    models = networks()
    with torch.no_grad():
        models[1].network.head.bias[0] = torch.nan
    fit = ensemble.fit(models, noise(), ROWS, CONFIG, seeds=SEEDS, device=CPU)
    with pytest.raises(FloatingPointError, match="loss of seed 0 is nan in epoch 1, step 1 of 3;"):
        next(fit)
    assert all(tensor.isfinite().all() for tensor in models[2].state_dict().values())


def test_networks_and_seeds_that_do_not_fit_are_refused():
    data = noise()
    with pytest.raises(ValueError, match="got 3 networks and 2 seeds"):
        stacked(data, seeds=(0, 1))
    with pytest.raises(ValueError, match="got 0 networks and 0 seeds"):
        list(ensemble.fit([], data, ROWS, CONFIG, seeds=[], device=CPU))
    with pytest.raises(ValueError, match="of one architecture"):
        list(
            ensemble.fit(
                [*networks(1)[:2], *networks(3)[:1]], data, ROWS, CONFIG, seeds=SEEDS, device=CPU
            )
        )
    with pytest.raises(ValueError, match="at_once must be >= 1, got 0"):
        stacked(data, at_once=0)
    with pytest.raises(ValueError, match=r"batch_size must be <= .* \(15\), got 16"):
        stacked(data, rows=ROWS[:15])


def test_margins_are_those_of_every_network():
    models = networks(3)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 6, 4, generator=draw)
    labels = torch.randint(0, 3, (5,), generator=draw)
    task = Classification(mean=0.5, std=0.3)
    for model in models:
        model.train()(images)  # moves the BatchNorm statistics away from 0 and 1
    found = ensemble.margins(models, task, Samples(images, labels))
    assert found.shape == (3, 5)
    assert found.dtype == torch.float64
    assert all(model.training for model in models)
    for model, own in zip(models, found, strict=True):
        p = model.eval()((images - 0.5) / 0.3).softmax(1)[range(5), labels]
        # 1e-12: the naive form cancels in 1 − p.
        torch.testing.assert_close(own, (p / (1 - p)).log(), rtol=1e-12, atol=1e-12)


def test_margins_of_float32_networks_are_float64():
    torch.manual_seed(0)
    model = resnet_small.build(resnet_small.Config(width=2), (1, 6, 4), 3)
    samples = Samples(torch.rand(2, 1, 6, 4), torch.tensor([0, 2]))
    found = ensemble.margins([model], Classification(), samples)
    expected = margins(model.eval()(samples.inputs).double(), samples.targets)
    assert torch.equal(found[0], expected.detach())
