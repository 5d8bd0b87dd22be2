import copy
import re
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from imu import discovery, methods
from imu.methods import ForgetSet, UnlearningError
from imu.methods.common import descent
from imu.methods.common.adversarial import nearest
from imu.methods.common.block import Block
from imu.methods.common.descent import Sgd, descend
from imu.models import find_head, head, resnet_small
from imu.objectives import (
    IGNORED,
    Samples,
    features_and_logits,
    mean_cross_entropy,
    predictions,
)
from imu.objectives.classification import Classification
from tests import oracles
from tests.problems import Shared

torch.set_num_threads(1)
METHODS = methods.names()
TASK = Classification(mean=0.5, std=0.3)
# Meant to keep the retain set or to smooth, not to raise the forget loss.
NOT_RAISING = {"nothing", "fine_tune", "l1_sparse", "jit", "cf_k"}
# Train in training mode, so that BatchNorm's statistics are those of the batches.
MEASURING = {"eu_k", "cf_k", "ct", "msg"}
# Settings that make one method take several ways, each of which must do as the contract says.
WAYS = {
    "amun": [{"with_forget": False}, {"with_forget": True}],
    "gradient_ascent": [
        {"parameters": where, "loss": loss}
        for where in ("all", "head")
        for loss in ("cross_entropy", "unlikelihood")
    ],
    "fanchuan": [{"uniform_rate": 0.03, "forget_rate": 0.03}],
    "imu": [{"weights": kind} for kind in ("influence", "permuted", "uniform")],
    "imu_deep": [{"influence": kind} for kind in ("self", "permuted", "uniform", "loss")],
    "imu_words": [{"influence": kind} for kind in ("self", "permuted", "uniform", "loss")],
    "imu_sequences": [
        {"influence": kind} for kind in ("trained", "untrained", "permuted", "uniform")
    ],
    "imu_published": [
        {"freeze_batch_norm": True},
        {"freeze_batch_norm": False},
        {"freeze_batch_norm": True, "per_batch": True},
    ],
    "gradient_difference": [{"ascent": "npo", "keeping": "kl"}, {"ascent": "cross_entropy"}],
}
HEAD = {"parameters": "head"}
EVERY_WAY = [(method, given) for method in METHODS for given in WAYS.get(method, [{}])]
# Few attack steps, for speed; dampening and a Newton step that suit a tiny network.
QUICK = {
    "attack_steps": 4,
    "draws": 2,
    "selection": 1.0,
    "dampening": 0.1,
    "scale": 0.1,
    "damping": 0.1,
}


def module(method: str):
    return discovery.load("imu.methods", method)


def config(method: str, sgd: dict | None = None, **given):
    """Quick settings, with those of ``given`` that the method has; likewise those of its SGD."""
    kind = module(method).Config
    wanted = QUICK | given
    made = kind(**{f.name: wanted[f.name] for f in fields(kind) if f.name in wanted})
    return replace(made, sgd=replace(made.sgd, **sgd)) if sgd and hasattr(made, "sgd") else made


def refuses_to_stop(method: str) -> bool:
    try:
        config(method, {"stop_at_target": True})
    except ValueError:
        return True
    return False


BY_SGD = [method for method in METHODS if hasattr(config(method), "sgd")]
STEPPING = [*BY_SGD, "imu", "imu_deep"]
STOPPING = [method for method in BY_SGD if not refuses_to_stop(method)]


@cache
def original() -> tuple[nn.Module, Tensor, Tensor]:
    """A trained network, images with one bright third each, and which; it gets all right."""
    torch.manual_seed(0)
    model = resnet_small.build(resnet_small.Config(width=3), (1, 8, 8), 3)
    labels = torch.arange(60) % 3
    images = 0.7 * torch.rand(60, 1, 8, 8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 * label : 3 * label + 2] += 0.3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        TASK.losses(TASK.logits(model, images), labels).mean().backward()
        optimizer.step()
    model.zero_grad()
    assert (predictions(model, TASK, images).argmax(1) == labels).all()
    return model, images, labels


def class_wise() -> tuple[nn.Module, ForgetSet, Samples]:
    model, images, labels = copy.deepcopy(original())
    of = labels == 1
    forget = ForgetSet(samples=Samples(images[of], labels[of]), classes=(1,), target_accuracy=0.0)
    return model, forget, Samples(images[~of], labels[~of])


def sample_wise(target: float = 0.0) -> tuple[nn.Module, ForgetSet, Samples]:
    model, images, labels = copy.deepcopy(original())
    forget = ForgetSet(samples=Samples(images[:20], labels[:20]), classes=(), target_margin=target)
    return model, forget, Samples(images[20:], labels[20:])


def available(forget: ForgetSet, retain: Samples) -> dict:
    weights = torch.linspace(1.0, 0.0, len(forget.samples))
    return {"forget": lambda: forget, "influence": lambda: weights, "retain": lambda: retain}


def stepwise(method: str, case: tuple, made=None, seed: int = 0):
    model, forget, retain = case
    made = config(method) if made is None else made
    return methods.run(method, model, TASK, made, seed=seed, available=available(forget, retain))


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name for (name, a), b in pairs if not torch.equal(a, b)}


def running(names: set[str]) -> set[str]:
    return {name for name in names if "running_" in name or "num_batches" in name}


def loss(model: nn.Module, samples: Samples) -> float:
    return oracles.cross_entropy(predictions(model, TASK, samples.inputs), samples.targets)


def test_every_kind_of_method_is_among_those_tested():
    assert {"imu", "npo", "scrub", "ssd"} <= set(METHODS)
    assert set(METHODS) - set(STEPPING) == {
        "nothing",
        "logit_mask",
        "token_mask",
        "refuse",
        "imu_sequences",
        "ssd",
        "woodfisher",
    }
    assert set(BY_SGD) - set(STOPPING) == {"imu_published", "scrub", "fanchuan", *MEASURING}


@pytest.mark.parametrize("case", [class_wise, sample_wise])
@pytest.mark.parametrize("method", STEPPING)
def test_zero_steps_change_nothing(method, case):
    model, *data = case()
    before = copy.deepcopy(model)
    none = config(method, {"epochs": 0}, max_steps=0, epochs=0)
    steps = list(stepwise(method, (model, *data), none))
    assert [step.step for step in steps] == [0]
    assert changed(before, model) == set()


@pytest.mark.parametrize("case", [class_wise, sample_wise])
@pytest.mark.parametrize(("method", "given"), EVERY_WAY)
def test_steps_tell_the_state_of_the_model_when_they_are_yielded(method, given, case):
    model, forget, retain = case()
    seen = []
    made = config(method, {"epochs": 2, "batch_size": 8}, **given)
    for step in stepwise(method, (model, forget, retain), made):
        logits = predictions(copy.deepcopy(model), TASK, forget.samples.inputs)
        targets = forget.samples.targets
        # 1e-5: float32, and some methods multiply cached features in place of the whole network.
        expected = oracles.cross_entropy(logits, targets)
        assert step.loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert step.accuracy == pytest.approx(oracles.accuracy(logits, targets), abs=1e-9)
        assert step.margin == pytest.approx(oracles.margin(logits, targets), rel=1e-5, abs=1e-4)
        seen.append(step)
    numbers = [step.step for step in seen]
    assert numbers[0] == 0
    assert numbers == sorted(set(numbers))
    seconds = [0.0] + [step.seconds for step in seen]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("method", "given"), EVERY_WAY)
def test_a_seed_fixes_the_weights(method, given):
    models = []
    made = config(
        method, {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}, fisher_samples=7, **given
    )
    for elsewhere, seed in enumerate((5, 5, 6)):
        case = sample_wise()
        torch.manual_seed(elsewhere)  # what others draw does not matter
        list(stepwise(method, case, made, seed))
        models.append(case[0])
    assert changed(*models[:2]) == set()
    draws = method in [*BY_SGD, "imu_deep", "imu_sequences", "woodfisher"] or given == {
        "weights": "permuted"
    }
    assert bool(changed(*models[1:])) == draws


@pytest.mark.parametrize("method", METHODS)
def test_the_data_stay_as_they_were(method):
    model, forget, retain = class_wise()
    given = {name: load() for name, load in available(forget, retain).items()}
    before = copy.deepcopy(given)
    loaders = {name: lambda name=name: given[name] for name in given}
    made = config(method, {"epochs": 2})
    list(methods.run(method, model, TASK, made, seed=0, available=loaders))
    pairs = [
        (given["influence"], before["influence"]),
        (retain.inputs, before["retain"].inputs),
        (retain.targets, before["retain"].targets),
        (forget.samples.inputs, before["forget"].samples.inputs),
        (forget.samples.targets, before["forget"].samples.targets),
    ]
    assert all(torch.equal(now, then) for now, then in pairs)
    assert not any(now.requires_grad for now, _ in pairs)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_a_method_declares_is_handed_over(method):
    model, forget, retain = class_wise()
    needs, loaded = module(method).NEEDS, []

    def counted(name, load):
        return lambda: loaded.append(name) or load()

    loaders = {name: counted(name, load) for name, load in available(forget, retain).items()}
    loaders["test"] = counted("test", lambda: pytest.fail("the test set was read"))
    if "retain" not in needs:
        loaders["retain"] = counted("retain", lambda: pytest.fail("the retain set was read"))
    made = config(method, {"epochs": 1})
    list(methods.run(method, model, TASK, made, seed=0, available=loaders))
    assert sorted(loaded) == sorted(needs)
    for need in needs:
        less = {name: load for name, load in loaders.items() if name != need}
        with pytest.raises(ValueError, match=rf"{method} needs \['{need}'\]"):
            next(methods.run(method, model, TASK, made, seed=0, available=less))


def test_the_retain_set_is_declared_by_those_that_say_so_in_their_description():
    declared = {method for method in METHODS if "retain" in module(method).NEEDS}
    assert declared == {m for m in METHODS if "Needs the retain set" in flat(module(m).__doc__)}


def flat(text: str) -> str:
    return " ".join(text.split())


def test_an_unknown_method_is_told_the_choices():
    case = class_wise()
    with pytest.raises(ValueError, match="no 'amnesia': choose from " + ", ".join(METHODS)):
        next(stepwise("amnesia", case, Sgd(learning_rate=1.0, epochs=1)))


@pytest.mark.parametrize(
    ("targets", "message"),
    [([], "forget set is empty"), ([[IGNORED, IGNORED]], "every target .* is IGNORED")],
)
def test_a_forget_set_without_anything_to_forget_is_refused(targets, message):
    samples = Samples(torch.ones(len(targets), 2), torch.tensor(targets, dtype=torch.int64))
    with pytest.raises(ValueError, match=message):
        ForgetSet(samples=samples, classes=(), target_margin=0.0)


RATES = {"imu_published": 0.05, "jit": 0.01, "l1_sparse": 0.01, "l2ul": 0.01, "scrub": 0.003}


@pytest.mark.parametrize(("method", "given"), EVERY_WAY)
def test_the_loss_moves_the_way_it_is_meant_to(method, given):
    model, forget, retain = class_wise()
    before = copy.deepcopy(model)
    # Batch statistics are left out: they alone raise the forget loss.
    made = config(
        method,
        {"learning_rate": RATES.get(method, 0.03), "epochs": 3},
        **given | {"freeze_batch_norm": True},
    )
    steps = list(stepwise(method, (model, forget, retain), made))
    assert steps[0].accuracy == 100.0
    if method == "nothing":
        assert changed(before, model) == set()
    elif method == "jit":
        assert roughness(model, forget.samples) < 0.9 * roughness(before, forget.samples)
    elif method == "scrub":  # away from the original: to either side
        still = class_wise()[0]
        list(stepwise(method, (still, forget, retain), replace(made, max_epochs=0)))
        away = [divergence(before, other, forget.samples) for other in (still, model)]
        assert away[1] > 1.5 * away[0]
    elif method == "rmu":  # features go where chance sends them: see its formula's test
        assert changed(before, model)
    elif given == {"with_forget": True}:
        neighbours, labels = nearest(before, TASK, forget.samples, made.radius, made.attack_steps)
        near = Samples(neighbours, labels)
        assert loss(model, near) < 0.9 * loss(before, near)
    elif method in NOT_RAISING:
        assert loss(model, retain) < 0.9 * loss(before, retain)
    else:
        assert steps[-1].loss > 1.05 * steps[0].loss


def divergence(one: nn.Module, other: nn.Module, samples: Samples) -> float:
    """Mean KL(one ‖ other)."""
    p, q = (predictions(model, TASK, samples.inputs).log_softmax(1) for model in (one, other))
    return float((p.exp() * (p - q)).sum(1).mean())


def roughness(model: nn.Module, samples: Samples) -> float:
    """Change of the logits over that of the inputs, under fixed noise."""
    noise = torch.randn(samples.inputs.shape, generator=torch.Generator().manual_seed(3))
    change = predictions(model, TASK, samples.inputs) - predictions(
        model, TASK, samples.inputs + 0.5 * noise
    )
    return float((change.norm(dim=1) / (0.5 * noise).flatten(1).norm(dim=1)).mean())


@pytest.mark.parametrize(("method", "given"), EVERY_WAY)
def test_batch_norm_statistics_stay(method, given):
    case = class_wise()
    before = copy.deepcopy(case[0])
    list(stepwise(method, case, config(method, {"epochs": 2, "batch_size": 8}, **given)))
    names = changed(before, case[0])
    if method in MEASURING:
        trained = {"eu_k": "blocks.0", "cf_k": "blocks.0"}.get(method, "no layer")
        assert running(names) == {
            n for n in running(set(before.state_dict())) if not n.startswith((trained, "stem"))
        } | ({n for n in running(names) if method in ("ct", "msg")})
    elif given == {"freeze_batch_norm": False}:
        assert running(names) == running(set(before.state_dict()))
        assert names - running(names) == {"head.weight", "head.bias"}
    else:
        assert running(names) == set()


@pytest.mark.parametrize("how", ["to its end", "abandoned", "broken off by an error"])
@pytest.mark.parametrize(("method", "given"), EVERY_WAY)
def test_modes_and_gradient_switches_are_as_they_were(method, given, how):
    model, forget, retain = class_wise()
    model.train()
    model.stem[1].eval()
    model.stem[0].weight.requires_grad_(False)
    frozen = model.stem[0].weight.clone()

    def switches():
        modes = {name: part.training for name, part in model.named_modules()}
        return modes, {name: p.requires_grad for name, p in model.named_parameters()}

    before = switches()
    hooks = [p._backward_hooks for p in model.parameters() if p._backward_hooks]
    made = config(method, {"epochs": 2, "batch_size": 4}, **given)
    progress = stepwise(method, (model, forget, retain), made)
    for number, _ in enumerate(progress):
        assert switches() == before
        if how == "abandoned" and number == 1:
            progress.close()
        if how == "broken off by an error":
            with torch.no_grad():
                head(model).weight.fill_(torch.nan)
            with suppress(FloatingPointError, UnlearningError):
                list(progress)
            break
    assert switches() == before
    assert [p._backward_hooks for p in model.parameters() if p._backward_hooks] == hooks
    assert torch.equal(model.stem[0].weight, frozen)


@pytest.mark.parametrize("method", STEPPING)
def test_a_diverging_run_names_method_and_step(method):
    case = sample_wise(target=-1e9)
    huge = {"learning_rate": 1e38, "batch_size": 4}
    made = config(method, huge | {"momentum": 0.0}, step=1e300, **huge | {"learning_rate": 1e30})
    with pytest.raises(
        FloatingPointError,
        match=rf"^{method}: .*(nan|inf|not finite).* step [1-9]\d*; a smaller learning rate",
    ):
        list(stepwise(method, case, made))


def test_a_weight_that_is_not_finite_is_an_error_where_the_loss_is_as_well():
    model, forget, retain = class_wise()
    model.register_buffer("unused", torch.tensor(torch.inf))
    with pytest.raises(
        FloatingPointError, match=r"^nothing: .* weights are not finite after step 0"
    ):
        list(stepwise("nothing", (model, forget, retain)))


def test_a_loss_that_is_not_finite_names_its_update_where_few_are_measured():
    model = nn.Linear(3, 2)
    data = Samples(torch.rand(64, 3), torch.zeros(64, dtype=torch.int64))
    forget = ForgetSet(samples=data, classes=(), target_margin=-1e9)
    before, updates = copy.deepcopy(model), count(1)

    def of_batch(rows: Tensor) -> Tensor:
        return model.bias.sum() * (torch.nan if next(updates) == 3 else 0.0)

    progress = descend(
        model,
        TASK,
        forget,
        of_batch,
        Sgd(learning_rate=0.1, epochs=1, batch_size=1),
        torch.Generator(),
    )
    with pytest.raises(FloatingPointError, match="the objective is nan in step 3"):
        list(progress)
    assert changed(before, model) == set()  # the update is not made


@pytest.mark.parametrize("method", STOPPING)
def test_a_model_at_the_target_stays_where_it_stops_there_and_moves_where_not(method):
    for stops in (True, False):
        model, forget, retain = sample_wise(target=1e9)
        before = copy.deepcopy(model)
        sgd = {"learning_rate": 1e-4, "epochs": 2, "batch_size": 8, "stop_at_target": stops}
        steps = list(stepwise(method, (model, forget, retain), config(method, sgd)))
        per_epoch = -(-rows(method) // 8)
        assert steps[-1].step == (0 if stops else 2 * per_epoch)
        assert bool(changed(before, model)) == (not stops)


def rows(method: str) -> int:
    """How many samples an epoch has: 20 to forget, 40 to retain."""
    if method in ("fine_tune", "l1_sparse"):
        return 40
    beside = ("gradient_difference", "rmu")  # as many retain samples are drawn anew
    return 20 if "retain" not in module(method).NEEDS or method in beside else 60


ASCENT = ["gradient_ascent", "npo", "simnpo", "weighted_gradient_ascent"]


@pytest.mark.parametrize("method", [*ASCENT, "imu"])
@pytest.mark.parametrize("case", [class_wise, sample_wise])
def test_forgetting_stops_at_the_target(method, case):
    made = config(method, {"learning_rate": 0.03, "epochs": 100})
    *earlier, last = stepwise(method, case(), made)
    name = "accuracy" if case is class_wise else "margin"  # both targets are 0
    assert getattr(last, name) <= 0
    assert min(getattr(step, name) for step in earlier) > 0


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 5, 7, 9, 63, 64, 65])
def test_an_epoch_is_measured_after_every_update_or_four_times(batches):
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    data = Samples(torch.rand(batches, 3), torch.zeros(batches, dtype=torch.int64))
    forget = ForgetSet(samples=data, classes=(), target_margin=-1e9)
    sgd = Sgd(learning_rate=0.1, epochs=2, batch_size=1)

    def of_batch(rows: Tensor) -> Tensor:
        return TASK.losses(TASK.logits(model, data[rows].inputs), data[rows].targets).mean()

    steps = [s.step for s in descend(model, TASK, forget, of_batch, sgd, draw)]
    assert steps[0] == 0
    first, second = steps[1 : 1 + len(steps) // 2], steps[1 + len(steps) // 2 :]
    assert second == [batches + number for number in first]
    assert first[-1] == batches
    assert len(first) == min(batches, 4) == min(batches, descent.MEASUREMENTS)
    gaps = [b - a for a, b in zip([0, *first], first, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_evaluation_mode_switches_dropout_off():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
    data = Samples(torch.rand(6, 4), torch.arange(6) % 2)
    forget = ForgetSet(samples=data, classes=(), target_margin=-1e9)
    made = config("gradient_ascent", {"epochs": 3, "learning_rate": 0.1})
    results = []
    for elsewhere in (0, 1):
        own = copy.deepcopy(model)
        torch.manual_seed(elsewhere)
        loaders = available(forget, data)
        list(methods.run("gradient_ascent", own, TASK, made, seed=0, available=loaders))
        results.append(own)
    assert changed(model, results[0]) != set()
    assert changed(*results) == set()


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("gradient_ascent", {"parameters": "head"}),
        ("imu", {}),
        ("imu_published", {"freeze_batch_norm": True}),
    ],
)
def test_only_the_head_changes(method, given):
    case = class_wise()
    before = copy.deepcopy(case[0])
    list(stepwise(method, case, config(method, **given)))
    assert changed(before, case[0]) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", ["imu", "logit_mask"])
def test_only_the_rows_of_forgotten_classes_change(method):
    case = class_wise()
    before = head(copy.deepcopy(case[0]))
    list(stepwise(method, case))
    for now, then in zip(head(case[0]).parameters(), before.parameters(), strict=True):
        assert [torch.equal(a, b) for a, b in zip(now, then, strict=True)] == [True, False, True]


def test_imu_ends_after_its_last_step_whether_or_not_the_target_is_reached():
    steps = list(stepwise("imu", class_wise(), config("imu", step=1e-6, max_steps=2)))
    assert [step.step for step in steps] == [0, 1, 2]
    assert steps[-1].accuracy == 100.0


def test_imu_without_weights_is_an_error():
    model, forget, retain = class_wise()
    loaders = available(forget, retain) | {"influence": lambda: torch.zeros(len(forget.samples))}
    with pytest.raises(ValueError, match="weights are all 0"):
        next(methods.run("imu", model, TASK, config("imu"), seed=0, available=loaders))


def test_logit_mask_gives_probability_0():
    case = class_wise()
    list(stepwise("logit_mask", case))
    probabilities = predictions(case[0], TASK, torch.rand(50, 1, 8, 8)).softmax(1)
    assert probabilities.dtype == torch.float32
    assert probabilities[:, 1].abs().max() == 0.0


@pytest.mark.parametrize("method", ["imu_deep", "logit_mask"])
def test_a_class_ends_as_deep_below_the_others_as_is_asked_but_for_a_draw(method):
    case = class_wise()
    list(stepwise(method, case, config(method, depth=7.0, epochs=1)))
    features, logits = features_and_logits(case[0], TASK, case[1].samples.inputs)
    others = logits[:, [k for k in range(logits.shape[1]) if k != 1]].mean(1)
    most = (features.mean(0).sum() + 1) / features.shape[1] ** 0.5  # features are >= 0
    assert abs((others - logits[:, 1]).mean() - 7) < most
    assert (others - logits[:, 1]).std() > 0.01


def test_rows_of_unseen_classes_lie_off_the_others_along_what_stays():
    layer, before = nn.Linear(5, 4).double(), nn.Linear(5, 4).double()
    before.load_state_dict(layer.state_dict())
    at, along = torch.rand(2, 6, 3, 5, dtype=torch.float64)
    descent.lower(layer, (1, 3), 7.0, at, along, torch.Generator().manual_seed(3))
    drawn = torch.rand(2, 6, generator=torch.Generator().manual_seed(3))
    expected = oracles.unseen_rows(before, [1, 3], 7.0, at, along, drawn)
    for k in range(4):
        row, kept = ([*of.weight[k].tolist(), of.bias[k].item()] for of in (layer, before))
        # 1e-12: float64, summed in another order.
        assert row == pytest.approx(expected.get(k, kept), abs=1e-12)


def test_a_class_cannot_be_lowered_without_a_bias_or_another_class():
    given = (0,), 7.0, torch.ones(1, 2), torch.ones(1, 2), torch.Generator()
    with pytest.raises(ValueError, match="there is none to lower them below"):
        descent.lower(nn.Linear(2, 1), *given)
    with pytest.raises(ValueError, match="needs a head with a bias"):
        descent.lower(nn.Linear(2, 3, bias=False), *given)
    with pytest.raises(ValueError, match="needs a head with a bias"):
        descent.mask(nn.Linear(2, 3, bias=False), (0,))


def test_imu_deep_moves_nothing_where_it_could_not_lower_the_class():
    model, forget, retain = class_wise()
    model.head.bias = None
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="needs a head with a bias"):
        list(stepwise("imu_deep", (model, forget, retain)))
    assert changed(before, model) == set()


def test_logit_mask_does_nothing_when_no_class_is_forgotten_whole():
    case = sample_wise()
    before = copy.deepcopy(case[0])
    assert len(list(stepwise("logit_mask", case))) == 1
    assert changed(before, case[0]) == set()


def test_token_mask_hides_what_the_forget_set_has_alone_and_nothing_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
    before = copy.deepcopy(model)
    task = Tokens()
    forget = Samples(torch.tensor([[1, 2, 3]]), torch.tensor([[IGNORED, 5, 6]]))
    retain = Samples(torch.tensor([[1, 4, 3]]), torch.tensor([[IGNORED, 5, 7]]))
    given = available(ForgetSet(samples=forget, classes=(), target_margin=0.0), retain)
    made = config("token_mask")
    steps = list(methods.run("token_mask", model, task, made, seed=0, available=given))
    assert [step.step for step in steps] == [0, 1]
    read = (model[0].weight != before[0].weight).any(1).nonzero()[:, 0].tolist()
    said = (model[1].bias != before[1].bias).nonzero()[:, 0].tolist()
    assert (read, said) == ([2], [6])
    assert predictions(model, task, forget.inputs).softmax(-1)[..., 6].max() == 0
    assert torch.equal(model[0].weight[2], torch.zeros(4))
    alike = dict(given, retain=lambda: forget)
    untouched = copy.deepcopy(before)
    steps = methods.run("token_mask", untouched, task, made, seed=0, available=alike)
    assert [step.step for step in steps] == [0]


@dataclass(frozen=True)
class Tokens(Classification):
    """Tokens (n, positions) as they come, one prediction for each."""

    def logits(self, model: nn.Module, inputs) -> Tensor:
        return model(inputs)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)


@pytest.mark.parametrize(("method", "given"), [("imu", {}), ("gradient_ascent", HEAD)])
def test_a_head_that_moves_alone_needs_no_position_that_is_not_predicted(method, given):
    """Oracle: the samples with what is not predicted between them cut out by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).double()
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    wide = torch.tensor([[IGNORED, 2, IGNORED, 3], [4, IGNORED, IGNORED, 1]])
    by_hand = Samples(torch.tensor([[2, 4], [5, 8]]), torch.tensor([[2, 3], [4, 1]]))
    found = []
    for samples in (Samples(tokens, wide), by_hand):
        now = copy.deepcopy(model)
        case = ForgetSet(samples=samples, classes=(), target_margin=-9.0)
        made = config(method, {"epochs": 2}, max_steps=3, **given)
        steps = methods.run(method, now, Tokens(), made, seed=0, available=available(case, samples))
        found.append(([step[:4] for step in steps], now[1].weight))
    (steps, weight), (expected, wanted) = found
    torch.testing.assert_close(weight, wanted, rtol=0, atol=1e-12)
    for step, other in zip(steps, expected, strict=True):
        assert step == pytest.approx(other, rel=1e-12)
    assert not torch.equal(weight, model[1].weight)


def test_imu_published_trains_the_named_layers_and_weighs_anew_in_each_batch():
    model = sample_wise()[0]
    layer = next(n for n, part in model.named_modules() if isinstance(part, nn.Conv2d))
    found = {}
    for per_batch in (True, False):
        for first in (1.0, 9.0):  # influence of the stage, which counts where it is asked for
            case = sample_wise()
            made = config(
                "imu_published", layers=(layer,), per_batch=per_batch, freeze_batch_norm=True
            )
            given = available(case[1], case[2])
            weights = torch.ones(len(case[1].samples))
            weights[0] = first
            given["influence"] = lambda weights=weights: weights
            list(methods.run("imu_published", case[0], TASK, made, seed=0, available=given))
            assert changed(model, case[0]) == {f"{layer}.weight"}
            found[per_batch, first] = case[0].get_submodule(layer).weight
    assert torch.equal(found[True, 1.0], found[True, 9.0])
    assert not torch.equal(found[False, 1.0], found[False, 9.0])


OUT_OF_RANGE = {
    "sgd": [
        ("learning_rate", 0.0),
        ("epochs", -1),
        ("batch_size", 0),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
    ],
    "amun": [("radius", 0.0), ("attack_steps", 0)],
    "bad_teacher": [("temperature", 0.0)],
    "boundary_shrink": [("epsilon", 0.0)],
    "cf_k": [("k", 0)],
    "eu_k": [("k", 0), ("mixed", 1.5), ("shift", -1)],
    "fanchuan": [("uniform_rate", 0.0), ("forget_rate", 0.0), ("temperature", 0.0)],
    "gradient_ascent": [("parameters", "tail"), ("loss", "hinge")],
    "gradient_difference": [
        ("ascent", "hinge"),
        ("beta", 0.0),
        ("keeping", "all"),
        ("weight", -1.0),
    ],
    "imu": [("weights", "none"), ("step", 0.0), ("max_steps", -1)],
    "imu_sequences": [
        ("influence", "none"),
        ("alpha", -1.0),
        ("learning_rate", 0.0),
        ("max_steps", -1),
        ("batch_size", 0),
    ],
    "imu_deep": [
        ("layers", ("",)),
        ("blocks", 0),
        ("influence", "none"),
        ("damping", 0.0),
        ("reach", 0.0),
        ("temperature", 0.0),
        ("stretch", 0.0),
        ("output", -1.0),
        ("neighbours", -1.0),
        ("radius", 0.0),
        ("attack_steps", 0),
        ("depth", -1.0),
        ("learning_rate", 0.0),
        ("epochs", -1),
        ("batch_size", 0),
    ],
    "imu_words": [
        ("influence", "none"),
        ("damping", 0.0),
        ("reach", -1.0),
        ("copies", 0),
    ],
    "imu_published": [("alpha", -1.0), ("layers", ("",))],
    "idk_dpo": [("beta", 0.0)],
    "jit": [("sigma", 0.0), ("draws", 0)],
    "l1_sparse": [("gamma", -1.0)],
    "l2ul": [("adversarial", -1.0), ("importance", -1.0), ("radius", 0.0), ("attack_steps", 0)],
    "logit_mask": [("depth", -1.0)],
    "msg": [("share", -0.1)],
    "npo": [("beta", 0.0)],
    "refuse": [("refusal", ""), ("learning_rate", 0.0), ("epochs", -1), ("batch_size", 0)],
    "rmu": [("layers", ("",)), ("steering", -1.0), ("weight", -1.0)],
    "salun": [("share", 0.0), ("share", 1.1)],
    "scrub": [("alpha", -1.0), ("gamma", -1.0), ("max_epochs", -1), ("temperature", 0.0)],
    "simnpo": [("beta", 0.0), ("gamma", -1.0)],
    "ssd": [("selection", 0.0), ("dampening", 0.0), ("chunk", 0)],
    "trw": [("tilt", -1.0)],
    "undial": [("strength", 0.0)],
    "weighted_gradient_ascent": [("beta", -1.0), ("importance", -1.0)],
    "woodfisher": [("scale", 0.0), ("damping", 0.0), ("fisher_samples", 0), ("chunk", 0)],
}


def settings(method: str) -> set[str]:
    """The fields of a method's settings that can be out of range."""
    made = config(method)
    return {f.name for f in fields(made) if not isinstance(getattr(made, f.name), bool | Sgd)}


@cache
def shared() -> nn.Module:
    """A trained network, layers of which are in two places."""
    torch.manual_seed(0)
    model, (_, images, labels) = Shared(), original()
    assert find_head(model, (1, 8, 8)) == "classifier.2"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        TASK.losses(TASK.logits(model, images), labels).mean().backward()
        optimizer.step()
    model.zero_grad()
    return model


@pytest.mark.parametrize("method", METHODS)
def test_what_two_places_share_moves_in_both(method):
    model, (_, forget, retain) = copy.deepcopy(shared()), class_wise()
    forget = replace(forget, target_accuracy=-1.0)  # is never reached
    before = copy.deepcopy(model)
    list(stepwise(method, (model, forget, retain), config(method, {"epochs": 1})))
    assert model.fc is model.classifier[2]
    moved = changed(before, model)
    assert ("fc.weight" in moved) == (method not in ("nothing", "rmu"))
    state = model.state_dict()
    assert torch.equal(state["fc.weight"], state["classifier.2.weight"])
    if method in ("imu_deep", "rmu"):
        assert "conv.weight" in moved
    if method == "imu_deep":
        for name in ("fc", "classifier"):
            with pytest.raises(ValueError, match="layers must be modules before the head"):
                Block(model, TASK, (name,))


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_out_of_range_is_refused(method):
    cases = OUT_OF_RANGE.get(method, [])
    assert {name for name, _ in cases} == settings(method)
    for name, value in cases:
        with pytest.raises(ValueError, match=f"{name} must be .*got {re.escape(repr(value))}"):
            replace(config(method), **{name: value})


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE["sgd"])
def test_every_setting_of_sgd_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value}"):
        replace(Sgd(learning_rate=0.1, epochs=1), **{name: value})


@pytest.mark.parametrize(
    ("method", "sgd", "message"),
    [
        ("imu_published", {"batch_size": 1}, r"sgd.batch_size must be >= 2, got 1"),
        ("imu_published", {"stop_at_target": True}, "no stopping rule"),
        ("scrub", {"stop_at_target": True}, "stop_at_target must be false"),
        ("salun", {"weight_decay": 0.1}, "weight_decay must be 0, .*got 0.1"),
    ],
)
def test_sgd_that_contradicts_the_method_is_refused(method, sgd, message):
    with pytest.raises(ValueError, match=message):
        config(method, sgd)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_searched_for_is_a_setting_and_every_candidate_is_valid(method):
    for name, candidates in getattr(module(method), "SEARCH", {}).items():
        assert len(set(candidates)) == len(candidates) > 1
        for value in candidates:
            own, _, inner = name.rpartition(".")
            made = config(method, {inner: value}) if own else config(method, **{inner: value})
            assert getattr(getattr(made, own) if own else made, inner) == value
