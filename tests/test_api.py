"""What ``import imu`` gives, held against what it calls."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import imu
from imu import influences, methods, metrics, verdicts
from imu.methods import imu as published_rule
from imu.methods import npo
from imu.models import resnet_small
from imu.objectives import margins, predictions
from imu.objectives.classification import Classification

TASK = Classification(mean=0.3, std=0.4)
CLASSES = 3
torch.set_num_threads(1)


def drawn(count: int, seed: int) -> imu.Samples:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = 0.6 * torch.rand(count, 1, 8, 8, generator=draw)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 * label : 3 * label + 2] += 0.3
    return imu.Samples(images, labels)


def network(seed: int, samples: imu.Samples) -> nn.Module:
    """Trained for a moment."""
    torch.manual_seed(seed)
    model = resnet_small.build(resnet_small.Config(width=4), (1, 8, 8), CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        TASK.losses(TASK.logits(model, samples.inputs), samples.targets).mean().backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def sets() -> dict[str, imu.Samples]:
    """Class 2 is to be forgotten."""
    trained = drawn(60, 0)
    whole = trained.targets == 2
    return {
        "forget": trained[whole],
        "retain": trained[~whole],
        "validation": drawn(30, 1),
        "test": drawn(30, 2),
    }


@pytest.fixture(scope="module")
def model(sets) -> nn.Module:
    both = (sets["forget"], sets["retain"])
    return network(
        0, imu.Samples(*(torch.cat([getattr(s, n) for s in both]) for n in ("inputs", "targets")))
    )


@pytest.fixture(scope="module")
def reference(sets) -> nn.Module:
    return network(0, sets["retain"])


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def test_importing_imu_imports_no_torch_and_every_name_is_there() -> None:
    code = "import sys, imu; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    for name in imu.__all__:
        assert getattr(imu, name)
    with pytest.raises(AttributeError, match="module 'imu' has no attribute 'forget'"):
        imu.forget  # noqa: B018


def test_unlearning_a_class_is_the_method_on_a_copy(sets, model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, course = imu.unlearn(model, sets["forget"], classes=[2], objective=TASK)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert course[0].accuracy > 90
    assert course[-1].accuracy == 0.0
    given = influences.Config()
    weights, _ = influences.ascent_weights(
        influences.influence(model, TASK, sets["forget"], given),
        clip_quantile=given.clip_quantile,
        top_fraction=given.top_fraction,
    )
    target = methods.ForgetSet(samples=sets["forget"], classes=(2,), target_accuracy=0.0)
    available = {"forget": lambda: target, "influence": lambda: weights}
    steps = methods.run(
        "imu", model_ := copied(model), TASK, published_rule.Config(), seed=0, available=available
    )
    assert [step[:4] for step in steps] == [step[:4] for step in course]
    assert same(found, model_)


def copied(model: nn.Module) -> nn.Module:
    twin = resnet_small.build(resnet_small.Config(width=4), (1, 8, 8), CLASSES).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def test_samples_are_forgotten_until_they_are_answered_as_held_out_ones(sets, model) -> None:
    forget = imu.Samples(sets["retain"].inputs[:6], sets["retain"].targets[:6])
    held = drawn(30, 1)

    def mean(samples: imu.Samples) -> float:
        logits = predictions(model, TASK, samples.inputs).double()
        return margins(logits, samples.targets).mean().item()

    _, course = imu.unlearn(model, forget, heldout=held, objective=TASK)
    of_label = {y: mean(held[held.targets == y]) for y in (0, 1)}
    wanted = sum(of_label[y] for y in forget.targets.tolist()) / len(forget)
    fallen = mean(forget) - max(mean(forget) - mean(held), 0.0)
    assert course[-1].margin <= min(wanted, fallen)
    assert course[-2].margin > min(wanted, fallen)
    _, longer = imu.unlearn(model, forget, heldout=held, retain=sets["retain"][:20], objective=TASK)
    both = imu.Samples(
        torch.cat([forget.inputs, sets["retain"].inputs[:20]]),
        torch.cat([forget.targets, sets["retain"].targets[:20]]),
    )
    fallen = mean(forget) - max(mean(both) - mean(held), 0.0)
    assert longer[-1].margin <= min(wanted, fallen)
    assert longer[-2].margin > min(wanted, fallen)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "classes or heldout must be given: classes are forgotten whole"),
        ({"classes": [0]}, r"classes must be labels of the forget set, \[2\], got 0"),
        ({"classes": [2], "method": "amnesia"}, "imu.methods has no 'amnesia': choose from amun"),
        (
            {"classes": [2], "config": npo.Config()},
            r"config must be an imu\.methods\.imu\.Config, got Config\(beta=",
        ),
        ({"classes": [2], "method": "fine_tune"}, r"fine_tune needs \['retain'\]"),
        ({"classes": [2], "seed": 2**64}, r"seed must be in \[0, 4294967296\), got 1844"),
    ],
)
def test_what_cannot_be_unlearned_is_refused(sets, model, given, message) -> None:
    with pytest.raises(ValueError, match=message):
        imu.unlearn(model, sets["forget"], objective=TASK, **given)


def test_images_of_another_range_are_refused(sets, model) -> None:
    wide = {n: imu.Samples(255 * s.inputs, s.targets) for n, s in sets.items()}
    said = r"must have numbers in \[0, 1\], the bounds .* or integers as stored, got .* to 2\d\d"
    with pytest.raises(ValueError, match=f"forget {said}"):
        imu.unlearn(model, wide["forget"], classes=[2], objective=TASK)
    with pytest.raises(ValueError, match=f"query {said}"):
        imu.influence(model, sets["forget"], query=wide["test"], objective=TASK)
    with pytest.raises(ValueError, match=f"test {said}"):
        imu.evaluate(model, sets | {"test": wide["test"]}, original=model, objective=TASK)
    own = Classification(mean=0.3 * 255, std=0.4 * 255, bounds=(0.0, 255.0))
    over = imu.Samples(wide["forget"].inputs - 9, wide["forget"].targets)  # as resizing leaves them
    assert imu.influence(model, over, objective=own).shape == (20,)


def test_influence_has_the_choices_of_its_config(sets, model) -> None:
    found = imu.influence(model, sets["forget"], objective=TASK)
    own = imu.influence(
        model, sets["forget"], objective=TASK, config=influences.Config(score="self")
    )
    assert found.shape == own.shape == (20,)
    assert bool((found < 0).any())
    assert bool((own >= 0).all())


def test_metrics_and_verdicts_are_those_of_the_pipeline(sets, model, reference) -> None:
    about = {"original": model, "classes": [2], "objective": TASK}
    found = imu.evaluate(model, sets, reference=reference, **about)
    ideal = imu.evaluate(reference, sets, reference=reference, **about)
    outputs = metrics.outputs_of(model, TASK, sets, forget_classes=(2,))
    assert found["FA"] == metrics.of_outputs(outputs).values["FA"]
    assert found["TV"] > ideal["TV"] == 0.0
    # Relearning has to regain the accuracy of the original, which the original has from the start.
    assert found["relearn_steps"] < ideal["relearn_steps"]
    alone = imu.evaluate(model, sets, **about)
    assert alone["FA"] == found["FA"]
    assert "JSD_unseen" in alone
    assert "TV" not in alone
    assert imu.verdict(found, ideal, sets, classes=[2]).outcome == "not forgotten"
    assert imu.verdict(ideal, ideal, sets, classes=[2]).outcome == "indistinguishable"
    lax = verdicts.Config(forgetting=100.0, features=100.0, distance=1.0, utility=100.0)
    assert imu.verdict(found, ideal, sets, classes=[2], config=lax).failed == []
    assert imu.verdict(found, ideal, sets, classes=[2], retrained=[found]).failed == []
    with pytest.raises(ValueError, match=r"classes must be labels .*, \[2\], got '2'"):
        imu.verdict(found, ideal, sets, classes=["2"])
    with pytest.raises(ValueError, match=r"sets must be forget, retain, .*, got forget"):
        imu.evaluate(model, {"forget": sets["forget"]}, original=model)
