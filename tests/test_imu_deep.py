"""imu_deep: its aims, its neighbours and what it moves."""

import copy

import pytest
import torch
from torch import Tensor, nn

from imu import methods
from imu.cost import FlopCounter
from imu.influences import Config as Influence
from imu.influences import influence
from imu.methods import ForgetSet, Step, UnlearningError, imu_deep
from imu.methods.common.block import Block, last_block
from imu.models import head, resnet18, resnet_small, vgg16_bn, vit
from imu.objectives import Samples, features_and_logits, predictions
from imu.objectives.classification import Classification
from tests import oracles
from tests.test_unlearn import TASK, changed, class_wise, original, sample_wise, stepwise

torch.set_num_threads(1)
MASKED = [False, True, False]


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def aimed(case: tuple, owed: Tensor | None = None, **given) -> tuple[Tensor, Tensor, ForgetSet]:
    """Logits of the original, and the aims."""
    model, forget, _ = case
    logits = predictions(model, TASK, forget.samples.inputs)
    config = imu_deep.Config(**given)
    aims = imu_deep._aim(model, TASK, config, draw(), forget, ("blocks.2",), logits, owed)
    return logits, aims, forget


def test_the_aim_of_a_class_is_the_original_without_its_logit():
    logits, aims, forget = aimed(class_wise())
    expected = logits.masked_fill(torch.tensor(MASKED), -1e4)
    assert torch.equal(aims, expected)
    assert set(forget.samples.targets.tolist()) == {1}


@pytest.mark.parametrize("reach", [1.0, 2.5])
def test_the_aims_of_samples_lie_as_far_down_as_the_target_times_reach(reach):
    logits, aims, forget = aimed(sample_wise(target=0.5), reach=reach)
    targets = forget.samples.targets
    before, after = (oracles.margin(z, targets) for z in (logits, aims))
    assert before > 1
    assert before - after == pytest.approx(reach * (before - 0.5), abs=1e-5)  # float32
    others = torch.ones_like(logits).scatter(1, targets[:, None], 0).bool()
    assert torch.equal(aims[others], logits[others])


def test_training_ends_before_samples_leave_their_target_again(monkeypatch):
    course = iter([2.0, 0.4, 0.3, 0.6])
    states = []

    def watching(*_):
        def watch(updates: int) -> Step:
            states.append({n: p.detach().clone() for n, p in case[0].named_parameters()})
            return Step(updates, 0.1, 100.0, next(course))

        return watch

    monkeypatch.setattr(imu_deep, "watcher", watching)
    case = sample_wise(target=0.5)
    steps = list(stepwise("imu_deep", case, imu_deep.Config(epochs=20)))
    assert [step.margin for step in steps[1:]] == [2.0, 0.4, 0.3]
    assert len(states) == 4
    now = dict(case[0].named_parameters())
    assert all(torch.equal(now[name], value) for name, value in states[2].items())
    assert not all(torch.equal(now[name], value) for name, value in states[3].items())


def test_labels_are_lowered_by_the_root_of_self_influence_where_the_block_and_the_head_are():
    case = sample_wise(target=0.5)
    logits, aims, forget = aimed(case)
    lowered = (logits - aims).gather(1, forget.samples.targets[:, None])[:, 0]
    asked = Influence(score="self", parameters=("blocks.2", "head"))
    root = influence(case[0], TASK, forget.samples, asked).clamp(min=0).sqrt()
    # 1e-4: a difference of float32 logits near 10, divided by one near 0.1.
    torch.testing.assert_close(lowered / lowered.sum(), root / root.sum(), rtol=0, atol=1e-4)
    assert root.max() > 1.5 * root.min()
    _, alike, _ = aimed(case, influence="uniform")
    same = (logits - alike).gather(1, forget.samples.targets[:, None])[:, 0]
    torch.testing.assert_close(same, same[:1].expand(20))
    _, other, _ = aimed(case, influence="permuted")
    permuted = (logits - other).gather(1, forget.samples.targets[:, None])[:, 0]
    assert (permuted / permuted.sum() - root / root.sum()).abs().max() > 1e-3
    owed = torch.arange(20.0)
    _, known, _ = aimed(case, owed)
    told = (logits - known).gather(1, forget.samples.targets[:, None])[:, 0]
    torch.testing.assert_close(told / told.sum(), owed / owed.sum(), rtol=0, atol=1e-4)


def collapsed(labels: Tensor) -> tuple[nn.Linear, Tensor, Tensor]:
    """A head of 4 classes, features at the class means of neural collapse, and their mean.

    The common mean lies where the head does not look, and the factor is 2.
    """
    layer = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    common = torch.tensor([0.0, 0, 0, 0, 0, 50], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 6, generator=draw(), dtype=torch.float64))
        layer.weight[:, 5] = 0.0
        layer.weight.sub_(layer.weight.mean(0))
        return layer, common + 2.0 * layer.weight[labels], common


def test_features_move_to_the_mixture_of_the_class_means_that_are_left():
    labels = torch.zeros(3, dtype=torch.int64)
    layer, features, common = collapsed(labels)
    logits = layer(features).detach()
    forget = ForgetSet(samples=Samples(features, labels), classes=(0,), target_accuracy=0.0)
    aim = torch.tensor([[-1e4, 60.0, 0.0, 0.0], [-1e4, 0.0, 0.0, 0.0], [-1e4, 0.0, 60.0, 60.0]])
    mixtures = torch.tensor([[0.0, 1, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 0.5, 0.5]])
    config = imu_deep.Config(stretch=1.0, temperature=0.5)
    found = imu_deep._features(layer, features, logits, aim.double(), config, forget)
    expected = (common + 2.0 * mixtures.double() @ layer.weight).detach()
    floor = features.min()
    torch.testing.assert_close(found, expected.clamp(min=floor), rtol=0, atol=1e-7)
    assert (expected > floor).double().mean() > 0.5


def entered(model: nn.Module, forget: ForgetSet) -> tuple[Block, dict[str, Tensor]]:
    block = Block(model, TASK, ())
    return block, block.entering(forget.samples).outputs


def test_the_block_replays_the_network():
    model, forget, _ = class_wise()
    block, entering = entered(model, forget)
    features, logits = features_and_logits(model, TASK, forget.samples.inputs)
    found = block.all(entering, forget.samples)
    torch.testing.assert_close(found[0], features)
    torch.testing.assert_close(found[1], logits)


def test_neighbours_lie_within_the_radius_and_are_of_other_classes():
    model, forget, _ = class_wise()
    block, entering = entered(model, forget)
    config = imu_deep.Config(radius=0.3)
    kept = imu_deep._neighbours(block, entering, forget.samples, (1,), config, draw())
    assert 0 < len(kept.samples) < len(forget.samples)  # some still pass for the class
    assert 1 not in kept.predictions.argmax(1)
    (name,) = entering
    near, start = kept.entering[name], entering[name]
    apart = (near[:, None] - start[None]).flatten(2).norm(dim=2)  # (kept, n)
    own = apart.min(1).values
    assert (own <= 0.3 * start.flatten(1).norm(dim=1).max() * (1 + 1e-5)).all()
    assert own.min() > 0
    assert near.min() >= start.min()
    features, logits = block.all(kept.entering, kept.samples)
    torch.testing.assert_close(features, kept.features)
    torch.testing.assert_close(logits.log_softmax(1), kept.predictions)


def run(case: tuple, **given) -> nn.Module:
    model, forget, _ = case
    given = {"batch_size": 8, **given}
    loaders = {"forget": lambda: forget}
    made = imu_deep.Config(**given)
    list(methods.run("imu_deep", model, TASK, made, seed=0, available=loaders))
    return model


@pytest.mark.parametrize("layers", [(), ("blocks.1", "blocks.2"), ("blocks.2.conv2",)])
def test_only_the_layers_move_and_the_masked_row(layers):
    case = class_wise()
    before = copy.deepcopy(case[0])
    names = changed(before, run(case, layers=layers))
    assert {n for n in names if n.startswith("head")} == {"head.weight", "head.bias"}
    others = {n for n in names if not n.startswith("head")}
    wanted = layers or ("blocks.1", "blocks.2")
    assert {name for n in others for name in wanted if n.startswith(name)} == set(wanted)
    assert all(n.startswith(wanted) for n in others)
    rows = [torch.equal(a, b) for a, b in zip(head(before).weight, head(case[0]).weight)]  # noqa: B905
    assert rows == [True, False, True]


def test_features_come_nearer_to_their_aims_and_neighbours_keep_others_in_place():
    model, forget, retain = class_wise()
    features, logits = features_and_logits(model, TASK, forget.samples.inputs)
    rate = {"learning_rate": 0.002}
    config = imu_deep.Config(**rate)
    aim = imu_deep._aim(model, TASK, config, draw(), forget, ("blocks.2",), logits)
    towards = imu_deep._features(head(model), features, logits, aim, config, forget)
    moved = {}
    for weight in (0.0, 3.0):
        case = (copy.deepcopy(model), forget, retain)
        after = run(case, neighbours=weight, epochs=20, **rate)
        now = features_and_logits(after, TASK, forget.samples.inputs)[0]
        assert (now - towards).norm() < 0.5 * (features - towards).norm()
        before = features_and_logits(model, TASK, retain.inputs)[0]
        moved[weight] = (features_and_logits(after, TASK, retain.inputs)[0] - before).norm()
    assert moved[3.0] < moved[0.0]


def test_samples_come_nearer_to_their_predictions_whatever_becomes_of_features():
    model, forget, retain = sample_wise(target=0.5)
    logits = predictions(model, TASK, forget.samples.inputs)
    aim = imu_deep._aim(model, TASK, imu_deep.Config(), draw(), forget, ("blocks.2",), logits)

    def apart(of: nn.Module) -> Tensor:
        found = predictions(of, TASK, forget.samples.inputs).log_softmax(1)
        return nn.functional.kl_div(found, aim.softmax(1), reduction="batchmean")

    case = (copy.deepcopy(model), forget, retain)
    after = run(case, epochs=20, learning_rate=0.002)
    assert apart(after) < 0.5 * apart(model)
    # What weighs features against predictions has no part in it.
    again = run(
        (copy.deepcopy(model), forget, retain),
        epochs=20,
        learning_rate=0.002,
        stretch=9.0,
        output=7.0,
    )
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters()))  # noqa: B905


NETWORKS = [
    (resnet_small, ("blocks.2",)),
    (resnet18, ("layer4.1",)),
    (vgg16_bn, ("features.40", "features.41")),
    (vit, ("encoder.layers.encoder_layer_5", "encoder.ln")),
]


@pytest.mark.parametrize(("module", "names"), NETWORKS)
def test_the_last_block_is_found_by_structure_and_trained_with_its_work_counted(module, names):
    torch.manual_seed(0)
    model = module.build(module.Config(), (3, 32, 32), 4)
    assert last_block(model) == names
    images = torch.rand(3, 3, 32, 32)
    # A network that is not trained has one answer for all; the class is another.
    whole = (int(predictions(model, TASK, images)[0].argmax()) + 1) % 4
    samples = Samples(images, torch.full((3,), whole))
    forget = ForgetSet(samples=samples, classes=(whole,), target_accuracy=0.0)
    with FlopCounter() as whole:
        predictions(model, TASK, images)
    with FlopCounter() as done:
        run((model, forget, None), blocks=1, epochs=2, attack_steps=1)
    # One pass of all, and of the block alone: 2 aims, 3 of 2 epochs and so many neighbours.
    assert whole.total < done.total < 12 * whole.total


def test_modules_that_are_replayed_are_no_work():
    layer = nn.Conv2d(1, 1, 3)
    layer.forward = lambda _: None
    with FlopCounter() as counter:
        layer(torch.zeros(1, 1, 5, 5))
    assert counter.total == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head", r"layers must be .*got 'head'"),
        ("", r"layers must be .*got ''"),
        ("blocks.9", r"layers must be .*got 'blocks.9'"),
        ("blocks.0.shortcut", r"layers must have parameters .*got \('blocks.0.shortcut',\)"),
    ],
)
def test_layers_that_cannot_be_trained_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        Block(class_wise()[0], Classification(), (name,))


def test_layers_that_overlap_are_trained_once():
    model = class_wise()[0]
    alone = Block(model, TASK, ("blocks.2",)).trained
    twice = Block(model, TASK, ("blocks.2", "blocks.2.conv1")).trained
    assert [id(p) for p in twice] == [id(p) for p in alone]


def test_several_classes_are_not_moved_into_each_other():
    model, images, labels = copy.deepcopy(original())
    of = labels != 2
    forget = ForgetSet(samples=Samples(images[of], labels[of]), classes=(0, 1), target_accuracy=0.0)
    logits = predictions(model, TASK, images[of])
    aims = imu_deep._aim(model, TASK, imu_deep.Config(), draw(), forget, ("blocks.2",), logits)
    assert (aims.argmax(1) == 2).all()
    block, entering = entered(model, forget)
    config = imu_deep.Config(radius=2.0)
    kept = imu_deep._neighbours(block, entering, forget.samples, (0, 1), config, draw())
    assert (kept.predictions.argmax(1) == 2).all()


def test_neighbours_that_all_pass_for_the_class_are_an_error():
    with pytest.raises(UnlearningError, match="every neighbour within the radius 1e-06"):
        run(class_wise(), radius=1e-6)


def test_neighbours_need_something_before_the_block():
    with pytest.raises(ValueError, match="nothing lies before stem, blocks: set neighbours to 0"):
        run(class_wise(), layers=("stem", "blocks"))
    run(class_wise(), layers=("stem", "blocks"), neighbours=0.0, epochs=1)
