"""What a method is given is checked before anything moves."""

import pytest
import torch
from torch import nn

from imu import discovery, methods
from imu.methods import ForgetSet
from imu.methods.common.descent import Sgd
from imu.objectives import Samples
from imu.objectives.classification import Classification

torch.set_num_threads(1)


def forget(**other) -> ForgetSet:
    given = {"samples": Samples(torch.rand(4, 3), torch.tensor([0, 1, 1, 2]))}
    return ForgetSet(**given | {"classes": (), "target_margin": 1.0} | other)


def first(method: str, **given):
    loaders = {name: (lambda value=value: value) for name, value in given.items()}
    config = discovery.load("imu.methods", method).Config()
    model = nn.Linear(3, 3)
    return next(methods.run(method, model, Classification(), config, seed=0, available=loaders))


@pytest.mark.parametrize("classes", [(3,), (-1,), ("1",)])
def test_a_class_must_be_a_label_of_the_forget_set(classes):
    with pytest.raises(ValueError, match=r"classes must be labels .* \[0, 1, 2\], got "):
        forget(classes=classes)


@pytest.mark.parametrize("target", [150.0, float("nan")])
def test_a_target_is_a_number_up_to_100(target):
    with pytest.raises(ValueError, match=f"target_accuracy must be <= 100, got {target}"):
        forget(target_accuracy=target)


def test_targets_are_integers():
    with pytest.raises(ValueError, match=r"targets must be int64, got torch\.float32"):
        Samples(torch.rand(2, 3), torch.zeros(2))


RETAINING = [m for m in methods.names() if "retain" in discovery.load("imu.methods", m).NEEDS]


@pytest.mark.parametrize("method", RETAINING)
def test_an_empty_retain_set_is_refused(method):
    empty = Samples(torch.rand(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the retain set is empty"):
        first(method, forget=forget(), retain=empty)


@pytest.mark.parametrize("method", ["imu", "imu_published"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(5), "one weight for each of 4 samples, got torch.Size"),
        (torch.tensor([1.0, -1.0, 0.0, 0.0]), "must be finite weights >= 0"),
        (torch.tensor([1.0, float("nan"), 0.0, 0.0]), "must be finite weights >= 0"),
    ],
)
def test_influence_must_be_weights(method, weights, message):
    with pytest.raises(ValueError, match=message):
        first(method, forget=forget(), influence=weights)


def test_a_bad_input_is_not_blamed_on_the_learning_rate():
    bad = Samples(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    with pytest.raises(FloatingPointError, match="after step 0, before any update: inputs or"):
        first("npo", forget=forget(samples=bad))


def test_an_importance_that_is_not_finite_is_an_error():
    retain = Samples(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    model, config = nn.Linear(3, 3), discovery.load("imu.methods", "ssd").Config()
    given = {"forget": forget, "retain": lambda: retain}
    with pytest.raises(FloatingPointError, match="ssd: the importance of weight is not finite"):
        list(methods.run("ssd", model, Classification(), config, seed=0, available=given))


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_rates_are_finite(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* and finite, got {value}"):
        Sgd(**{"learning_rate": 0.1, "epochs": 1} | {field: value})
