"""Attacks on what the outputs do not show, against oracles and on networks trained here."""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imu import training
from imu.datasets import digits
from imu.datasets.common.tensors import pixels
from imu.methods import ForgetSet, logit_mask
from imu.metrics import (
    Measured,
    Outputs,
    Subject,
    _fine_tuning,
    accuracy,
    class_leakage,
    compare,
    fine_tune_relearning,
    linear_probe,
    measure,
    of_outputs,
    outputs_of,
    prototype_relearning,
)
from imu.models import head, resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tests import oracles
from tests.test_metrics import changed

SIZES = {"forget": 14, "retain": 20, "validation": 40, "test": 20}
CLASSES, WIDTH, FORGOTTEN = 4, 6, 8


def outputs(seed: int = 0, forget_classes: tuple[int, ...] = (1, 3)) -> Outputs:
    """Overlapping classes in units of unlike scale; the labels do not depend on ``seed``."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    labels = {name: fixed.integers(0, CLASSES, n) for name, n in SIZES.items()}
    if forget_classes:
        labels["forget"] = np.resize(forget_classes, SIZES["forget"])
    means, scale = draw.normal(size=(CLASSES, WIDTH)), 10.0 ** np.arange(-3, 3)
    return Outputs(
        probabilities={n: draw.dirichlet(np.ones(CLASSES), size) for n, size in SIZES.items()},
        features={
            n: scale * (5 + means[y] + draw.normal(size=(len(y), WIDTH))) for n, y in labels.items()
        },
        labels=labels,
        forget_classes=forget_classes,
    )


def with_features(plain: Outputs, **features: np.ndarray) -> Outputs:
    return replace(plain, features=plain.features | features)


def subject_of(
    model: nn.Module,
    samples: dict[str, Samples],
    objective: Classification,
    forget_classes: tuple[int, ...] = (),
    original_accuracy: float = 100.0,
    seed: int = 0,
) -> Subject:
    return Subject(
        model=model,
        objective=objective,
        samples=samples,
        outputs=outputs_of(model, objective, samples, forget_classes=forget_classes, seed=seed),
        original_accuracy=original_accuracy,
    )


def small(forget_classes: tuple[int, ...] = (0,), **choices) -> Subject:
    """An untrained network and random images, each with its number as its first pixel."""
    torch.manual_seed(5)
    model = resnet_small.build(resnet_small.Config(width=2), (1, 8, 8), CLASSES)
    model(2 * torch.rand(40, 1, 8, 8))
    samples, count = {}, 0
    for name, n in SIZES.items():
        images = torch.rand(n, 1, 8, 8)
        images[:, 0, 0, 0] = torch.arange(count, count + n) / 100
        count += n
        targets = torch.arange(n) % CLASSES
        samples[name] = Samples(
            images, torch.zeros_like(targets) if name == "forget" and forget_classes else targets
        )
    return subject_of(model, samples, Classification(), forget_classes, **choices)


# The linear probe


@pytest.mark.parametrize(("count", "other"), [(None, 30.0), (1, 0.01), (5, 30.0)])
def test_the_probe_equals_least_squares(monkeypatch, count, other):
    monkeypatch.setattr(linear_probe, "DRAWS", 3)
    plain = outputs()
    known = plain.features["validation"], plain.labels["validation"]
    asked = plain.features["forget"], plain.labels["forget"]
    (mean, deviation), values = (known[0].mean(0), known[0].std(0)), {1.0: [], other: []}
    draws = range(1 if count is None else linear_probe.DRAWS)
    for number in draws:
        rows = np.arange(len(known[1]))
        if count is not None:
            rows = linear_probe._few(known[1], count, [plain.seed, number])
        standard = [(h - mean) / deviation / math.sqrt(WIDTH) for h in (known[0], asked[0])]
        for penalty, found in values.items():
            found.append(
                oracles.probe(
                    standard[0][rows],
                    known[1][rows],
                    standard[1],
                    asked[1],
                    scaled=False,
                    penalty=penalty,
                )
            )
    found = linear_probe.measure(plain)["probe" if count is None else f"probe_{count}"]
    assert found == pytest.approx(np.mean(values[1.0]), abs=1e-9)
    assert found != pytest.approx(np.mean(values[other]), abs=1e-9)
    assert 0 < found < 100


def test_the_few_are_drawn_by_class_and_seed(monkeypatch):
    seen, plainly = [], linear_probe.classified

    def classified(known, labels, asked):
        seen.append((known, labels))
        return plainly(known, labels, asked)

    monkeypatch.setattr(linear_probe, "classified", classified)
    plain = outputs()
    first = np.flatnonzero(plain.labels["validation"] == 2)[0]
    plain = changed(
        plain,
        "validation",
        (plain.labels["validation"] != 2) | (np.arange(SIZES["validation"]) == first),
    )
    once = linear_probe.measure(plain)
    for counts in ((1, 1, 1, 1), (5, 5, 1, 5)):
        drawn = [x.tobytes() for x, y in seen if tuple(np.bincount(y)) == counts]
        assert len(drawn) == linear_probe.DRAWS
        assert len(set(drawn)) > linear_probe.DRAWS / 2
    assert len(seen) == 2 * linear_probe.DRAWS + 1
    assert linear_probe.measure(plain) == once
    other = linear_probe.measure(replace(plain, seed=1))
    assert all(other[name] != once[name] for name in ("probe_1", "probe_5"))


def test_the_probe_of_few_is_the_probe_where_there_are_few():
    plain = outputs()
    order = np.argsort(plain.labels["validation"], kind="stable")
    ranks = np.concatenate([np.arange(n) for n in np.bincount(plain.labels["validation"])])
    for few in linear_probe.FEW:
        keep = np.sort(order[ranks < few])
        found = linear_probe.measure(changed(plain, "validation", keep))
        assert found["probe"] == pytest.approx(found[f"probe_{few}"], abs=1e-9)


def test_the_probe_misses_a_label_without_validation_samples():
    plain = outputs()
    lacking = changed(plain, "validation", plain.labels["validation"] != 3)
    assert linear_probe.measure(lacking) == {}
    why = "needs validation samples of every forget label, has none of 1"
    assert linear_probe.unmet(lacking.labels, lacking.forget_classes) == {
        "probe": why,
        "probe_1": why,
        "probe_5": why,
    }
    assert linear_probe.unmet(plain.labels, plain.forget_classes) == {}


def test_the_probe_needs_two_labels():
    plain = outputs(forget_classes=(1,))
    alone = changed(plain, "validation", plain.labels["validation"] == 1)
    assert linear_probe.measure(alone) == {}
    assert "2 or more labels, has 1" in linear_probe.unmet(alone.labels, (1,))["probe"]


# Prototypes


@pytest.mark.parametrize("k", prototype_relearning.COUNTS)
@pytest.mark.parametrize("classes", [(1,), (1, 3)])
def test_prototypes_equal_the_loop(k, classes):
    plain = outputs(2, forget_classes=classes)
    found = prototype_relearning.measure(plain)
    if k == 10 and classes == (1, 3):
        assert "proto_10" not in found
        return
    expected = {True: [], False: []}
    for number in range(prototype_relearning.DRAWS):
        draw = np.random.default_rng([plain.seed, number])
        orders = {c: draw.permutation(np.flatnonzero(plain.labels["forget"] == c)) for c in classes}
        drawn = {c: plain.features["forget"][rows[:k]] for c, rows in orders.items()}
        rest = {c: plain.features["forget"][rows[k:]] for c, rows in orders.items()}
        known = plain.features["validation"], plain.labels["validation"]
        for centred, values in expected.items():
            values.append(oracles.prototypes(*known, drawn, rest, centred))
    assert found[f"proto_{k}"] == pytest.approx(np.mean(expected[True]), abs=1e-9)
    assert found[f"proto_{k}"] != pytest.approx(np.mean(expected[False]), abs=1)


def test_a_prototype_is_never_asked_for_its_own_samples():
    """Every forget sample is nearer to a retained class than to any other forget sample."""
    plain = outputs(forget_classes=(1,))
    n, rows = SIZES["forget"], np.arange(SIZES["validation"])
    sides, noise = np.where(rows % 2, 1.0, -1.0), np.where(rows // 2 % 2, 1.0, -1.0)
    validation = np.column_stack([sides, *[noise] * n])  # mean 0 and deviation 1 in every unit
    forget = np.column_stack([np.full(n, 0.5), np.eye(n)])
    apart = replace(
        with_features(plain, validation=validation, forget=forget),
        labels=plain.labels | {"validation": np.where(sides > 0, 0, 2)},
    )
    assert prototype_relearning.measure(apart)["proto_1"] == 0


def test_prototypes_of_features_that_are_all_the_same_recover_nothing():
    plain = outputs()
    same = with_features(plain, **{n: np.ones((size, WIDTH)) for n, size in SIZES.items()})
    assert set(prototype_relearning.measure(same).values()) == {0.0}


def test_prototypes_need_a_class_forgotten_whole():
    assert prototype_relearning.measure(outputs(forget_classes=())) == {}


def test_a_count_that_leaves_no_sample_to_ask_is_left_out():
    plain = outputs(forget_classes=(1,))
    for n, expected in ((2, 1), (5, 1), (6, 2), (10, 2), (11, 3)):
        found = prototype_relearning.measure(changed(plain, "forget", np.arange(n)))
        assert list(found) == ["proto_1", "proto_5", "proto_10"][:expected]
        unmet = prototype_relearning.unmet({**plain.labels, "forget": np.ones(n, int)}, (1,))
        assert list(unmet) == ["proto_1", "proto_5", "proto_10"][expected:]
    single = changed(plain, "forget", np.arange(1))
    assert prototype_relearning.measure(single) == {}
    unmet = prototype_relearning.unmet(single.labels, (1,))
    assert unmet["proto_5"] == "needs 6 forget samples of each forgotten class, got 1"


def test_prototypes_need_a_retained_class():
    plain = outputs()
    forgotten = changed(plain, "validation", np.isin(plain.labels["validation"], (1, 3)))
    assert prototype_relearning.measure(forgotten) == {}
    why = prototype_relearning.unmet(forgotten.labels, forgotten.forget_classes)
    assert set(why.values()) == {"needs validation samples of a retained class"}


on_features = pytest.mark.parametrize("metric", [linear_probe, prototype_relearning])


@on_features
def test_units_in_another_scale_hide_nothing(metric):
    plain = outputs()
    scale = 10.0 ** np.array([4, -4, 0, 2, -2, 1])
    scaled = with_features(plain, **{n: scale * (h + 3) for n, h in plain.features.items()})
    assert metric.measure(scaled) == pytest.approx(metric.measure(plain), abs=1e-9)


@on_features
def test_attacks_on_features_never_read_the_test_set(metric):
    plain = outputs()
    blind = with_features(plain, test=np.full((SIZES["test"], WIDTH), np.nan))
    assert metric.measure(blind) == metric.measure(plain)


# Relearning


@dataclass(frozen=True)
class Watched(Classification):
    """Notes the first pixel of what is trained on and of what is measured."""

    def __post_init__(self):
        object.__setattr__(self, "trained", [])
        object.__setattr__(self, "measured", set())

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        numbers = (100 * inputs[:, 0, 0, 0]).round().int().tolist()
        assert not any(module.training for module in model.modules())
        if torch.is_grad_enabled():
            self.trained.append(numbers)
        else:
            self.measured.update(numbers)
        return super().logits(model, inputs)


@pytest.mark.parametrize("forget_classes", [(0,), ()])
def test_relearning_measures_on_nothing_that_it_trains_on(monkeypatch, forget_classes):
    monkeypatch.setattr(_fine_tuning, "BATCH", 4)
    watched = Watched()
    plain = replace(small(forget_classes, original_accuracy=200), objective=watched)
    fine_tune_relearning.attack(plain)
    trained = set(chain(*watched.trained))
    edges = np.cumsum([0, *SIZES.values()])
    forget, retain, validation, test = (set(range(a, b)) for a, b in pairwise(edges))
    others = {i for i in validation if (i - edges[2]) % CLASSES not in forget_classes}
    assert len(trained & forget) == len(forget) / 2
    assert trained - forget == others
    assert watched.measured & forget == forget - trained
    assert len(watched.measured & retain) == len(forget) / 2
    assert not watched.measured & (validation | test)
    # In each step as many of both kinds, in one pass.
    for numbers in watched.trained:
        assert set(numbers[:4]) <= forget
        assert set(numbers[4:]) <= others
        assert len(numbers) == 8


def test_of_large_sets_relearning_asks_a_part(monkeypatch):
    monkeypatch.setattr(_fine_tuning, "MEASURED", 3)
    watched = Watched()
    fine_tune_relearning.attack(replace(small(), objective=watched))
    forget = set(range(SIZES["forget"]))
    assert len(watched.measured & forget) == len(watched.measured - forget) == 3


@pytest.mark.parametrize("kinds", ["same", "mixed"])
def test_images_in_one_batch_have_the_losses_of_each_alone(kinds):
    """Images as stored and images in [0, 1] can be in one step, but not in one tensor."""
    plain = small()
    stored = Samples(torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 2]))
    unit = Samples(stored.inputs / 255, stored.targets)
    batches = [stored, unit if kinds == "mixed" else stored]
    merged = _fine_tuning._merged(batches)
    assert len(merged) == (2 if kinds == "mixed" else 1)
    each, found = (
        torch.cat([_fine_tuning._losses(plain.model, plain, b) for b in given])
        for given in (batches, merged)
    )
    assert torch.allclose(each, found, rtol=1e-5)  # float32, batches of another size
    assert torch.allclose(found[:3], found[3:], rtol=1e-5)


def test_no_distance_asks_what_an_attack_on_the_reference_found():
    judged, reference = small(seed=1), small(seed=1, forget_classes=(0,))
    with torch.no_grad():
        head(reference.model).bias[1] += 1
    reference = subject_of(reference.model, reference.samples, reference.objective, (0,), seed=1)
    attacked, alone = measure(reference), of_outputs(reference.outputs)
    assert "relearn_auc" in attacked.values
    assert "relearn_auc" not in alone.values
    found = measure(judged)
    assert compare(found, attacked) == compare(found, alone)


def test_relearning_never_reads_test_samples_nor_validation_samples_of_the_class():
    plain = small()
    blind = dict(plain.samples)
    blind["test"] = Samples(torch.full_like(blind["test"].inputs, torch.nan), blind["test"].targets)
    images = blind["validation"].inputs.clone()
    images[blind["validation"].targets == 0] = torch.nan
    blind["validation"] = Samples(images, blind["validation"].targets)
    found = fine_tune_relearning.attack(plain)
    assert found["relearn_auc"] > 0
    assert fine_tune_relearning.attack(replace(plain, samples=blind)) == found


def test_relearning_leaves_the_model_as_it_was():
    plain = small()
    model = plain.model
    model.train()
    model.blocks[0].eval()
    head(model).weight.requires_grad_(False)
    state, modes = deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    fine_tune_relearning.attack(plain)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.weight"]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_relearning_follows_the_seed():
    found = [fine_tune_relearning.attack(small(seed=s)) for s in (0, 1, 0)]
    torch.manual_seed(77)
    assert found[0] == found[2]
    assert found[0]["relearn_auc"] != found[1]["relearn_auc"]


def test_what_is_still_known_needs_no_relearning():
    found = fine_tune_relearning.attack(small(original_accuracy=0))
    assert (found["relearn_steps"], found["relearn_samples"]) == (0, 0)


def test_what_is_not_regained_has_the_stated_values():
    found = fine_tune_relearning.attack(small(original_accuracy=200))
    assert found["relearn_steps"] == fine_tune_relearning.MAX_STEPS
    assert found["relearn_samples"] == SIZES["forget"]


@pytest.mark.parametrize("fault", ["the class everywhere", "NaN"])
def test_an_answer_that_does_not_depend_on_the_image_regains_nothing(monkeypatch, fault):
    plain = small()
    with torch.no_grad():
        head(plain.model).bias[0] = 1e6 if fault == "the class everywhere" else torch.nan
        if fault == "NaN":
            head(plain.model).weight.fill_(torch.nan)
    monkeypatch.setattr(_fine_tuning, "_start_afresh", lambda layer, classes: None)
    found = fine_tune_relearning.attack(plain)
    # A quarter of the retained samples is of that class; of the 7 measured, at most 3 here.
    assert found["relearn_auc"] < (50 if fault == "the class everywhere" else 1e-9)
    assert found["relearn_steps"] == fine_tune_relearning.MAX_STEPS


@pytest.mark.parametrize("half", [1, 4, 20, 50])
def test_the_fewest_samples_are_found(monkeypatch, half):
    plain = small()
    plain.samples["forget"] = plain.samples["forget"][torch.zeros(2 * half, dtype=torch.int64)]
    counts = [k for k in _fine_tuning.COUNTS if k < half] + [half]
    for needed in counts:

        def relearn(subject, forget, others, measured, seed, every, needed=needed):
            yield from [0.0, 0.0, 100.0 if len(forget) >= needed else 0.0, 50.0]

        monkeypatch.setattr(_fine_tuning, "_relearn", relearn)
        found = fine_tune_relearning.attack(plain)
        assert found == {"relearn_auc": 37.5, "relearn_steps": 3, "relearn_samples": needed}


@pytest.mark.parametrize(("name", "keep"), [("forget", 1), ("retain", 0)])
def test_relearning_needs_samples(name, keep):
    plain = small()
    plain.samples[name] = plain.samples[name][:keep]
    assert fine_tune_relearning.attack(plain) == {}
    labels = {name: samples.targets.numpy() for name, samples in plain.samples.items()}
    why = fine_tune_relearning.unmet(labels, (0,))
    assert why.keys() == fine_tune_relearning.ABOUT.keys()
    assert "at least 2 forget samples and a retained one, got" in why["relearn_auc"]


def test_relearning_needs_validation_samples_of_other_classes():
    plain = small()
    validation = plain.samples["validation"]
    plain.samples["validation"] = validation[validation.targets == 0]
    assert fine_tune_relearning.attack(plain) == {}
    labels = {name: samples.targets.numpy() for name, samples in plain.samples.items()}
    why = fine_tune_relearning.unmet(labels, (0,))
    assert set(why.values()) == {"needs validation samples of classes that are not forgotten"}


# Class leakage


@pytest.mark.parametrize("classes", [(), (1,), (1, 3)])
def test_leakage_equals_the_loop(classes):
    one, other = outputs(0, classes), outputs(1, classes)
    asked = np.isin(one.labels["test"], classes)
    rows = [
        np.concatenate([o.probabilities["forget"], o.probabilities["test"][asked]])
        for o in (one, other)
    ]
    labels = np.concatenate([one.labels["forget"], one.labels["test"][asked]])
    found = class_leakage.compare(Measured(outputs=one), Measured(outputs=other))
    expected = oracles.leakage(*rows, labels)
    assert found == pytest.approx({"leakage": expected}, abs=1e-12)  # a sum of 30 shares
    assert 0.1 < expected < 1


def test_leakage_reads_the_order_of_wrong_labels_alone():
    plain = outputs(forget_classes=(1,))
    right = np.tile([0.1, 0.7, 0.15, 0.05], (SIZES["forget"], 1))
    wrong, other = (np.tile(p, (SIZES["forget"], 1)) for p in ([0, 0.1, 0.9, 0], [0.9, 0, 0.1, 0]))

    def leakage(one, two):
        sides = (
            Measured(outputs=replace(plain, probabilities=plain.probabilities | {"forget": p}))
            for p in (one, two)
        )
        return class_leakage.compare(*sides)["leakage"]

    asked = SIZES["forget"] + (plain.labels["test"] == 1).sum()
    assert leakage(right, wrong) == 0
    assert leakage(right, other) == pytest.approx(SIZES["forget"] / asked, abs=1e-12)
    assert right[0].tolist() == [0.1, 0.7, 0.15, 0.05]


def test_leakage_without_forget_samples_is_refused():
    empty = Measured(outputs=changed(outputs(forget_classes=()), "forget", np.arange(0)))
    with pytest.raises(ValueError, match="no forget samples"):
        class_leakage.compare(empty, empty)


# On trained networks


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Subject]:
    """Digits: the original network, one retrained without class 8, and the original masked."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder)
    data = digits.load(folder)
    order = np.random.default_rng(0).permutation(len(data.labels))
    seen, rest = order[:1000], {"validation": order[1000:1300], "test": order[1300:]}
    of_class = data.labels[seen] == FORGOTTEN
    sets = {"forget": seen[of_class], "retain": seen[~of_class], **rest}
    samples = {}
    for name, rows in sets.items():
        images, labels = pixels(data, rows.tolist(), torch.device("cpu"))
        samples[name] = Samples(images.float() / data.scale, labels)
    models = {}
    for name, rows in (("original", seen), ("retrained", sets["retain"])):
        torch.manual_seed(0)
        model = resnet_small.build(resnet_small.Config(width=16), (1, 8, 8), 10)
        config = training.Config(epochs=10)
        list(training.fit(model, data, rows.tolist(), config, seed=0, device=torch.device("cpu")))
        models[name] = model.eval()
    models["mask"] = deepcopy(models["original"])
    task = Classification(mean=data.mean, std=data.std)
    forget = ForgetSet(samples=samples["forget"], classes=(FORGOTTEN,), target_accuracy=0.0)
    method = logit_mask.unlearn(
        models["mask"], task, logit_mask.Config(), torch.Generator(), forget=forget
    )
    list(method)
    return {n: subject_of(m, samples, task, (FORGOTTEN,)) for n, m in models.items()}


@pytest.fixture(scope="module")
def values(trained) -> dict[str, dict[str, float]]:
    return {
        name: accuracy.measure(subject.outputs)
        | linear_probe.measure(subject.outputs)
        | prototype_relearning.measure(subject.outputs)
        | fine_tune_relearning.attack(subject)
        for name, subject in trained.items()
    }


def difference(values, name: str) -> float:
    return values["mask"][name] - values["retrained"][name]


@pytest.mark.parametrize("name", ["FA", "RA", "TFA", "TA"])
def test_a_mask_passes_the_output_metrics(values, name):
    assert abs(difference(values, name)) < 2  # points; the original is off by 95 in FA and TFA


# Measured differences over 4 seeds are at least twice as large.
@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("probe", 3),
        ("probe_1", 27),
        ("probe_5", 16),
        ("proto_1", 27),
        ("proto_5", 20),
        ("proto_10", 16),
    ],
)
def test_a_mask_fails_the_attacks_on_features(values, name, at_least):
    assert difference(values, name) > at_least
    assert values["mask"][name] == values["original"][name]


def test_a_mask_is_undone_sooner_than_a_retrained_model_learns(values):
    assert difference(values, "relearn_auc") > 10
    assert difference(values, "relearn_steps") < -5
    assert difference(values, "relearn_samples") <= 0


def test_relearning_sees_through_the_mask(values):
    assert values["mask"]["relearn_auc"] == values["original"]["relearn_auc"]
    assert values["original"]["relearn_steps"] == 0
    assert 0 < values["mask"]["relearn_steps"] < fine_tune_relearning.MAX_STEPS


def test_a_model_differs_from_itself_in_nothing(trained, values):
    again = replace(trained["mask"], model=deepcopy(trained["mask"].model))
    assert fine_tune_relearning.attack(again).items() <= values["mask"].items()
    assert linear_probe.measure(again.outputs).items() <= values["mask"].items()
    assert prototype_relearning.measure(again.outputs).items() <= values["mask"].items()
    own = Measured(outputs=again.outputs)
    assert class_leakage.compare(own, own) == {"leakage": 0.0}
