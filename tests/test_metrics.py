import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from imu import metrics
from imu.metrics import Measured, Outputs, Subject, accuracy, average_gap, membership
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tests import oracles

SETS = {"forget": 12, "retain": 40, "validation": 24, "test": 30}


def outputs(seed: int = 0, forget_classes: tuple[int, ...] = (1,)) -> Outputs:
    """Random outputs of four classes; the labels do not depend on ``seed``."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    labels = {name: fixed.integers(0, 4, n) for name, n in SETS.items()}
    return Outputs(
        probabilities={name: draw.dirichlet(np.ones(4), n) for name, n in SETS.items()},
        features={name: draw.normal(size=(n, 3)) for name, n in SETS.items()},
        labels=labels,
        forget_classes=forget_classes,
    )


def changed(plain: Outputs, name: str, keep: np.ndarray) -> Outputs:
    return replace(
        plain,
        probabilities=plain.probabilities | {name: plain.probabilities[name][keep]},
        features=plain.features | {name: plain.features[name][keep]},
        labels=plain.labels | {name: plain.labels[name][keep]},
    )


def of_outputs(plain: Outputs) -> Measured:
    """What the metrics of outputs find, without the attacks that need a network."""
    return Measured(outputs=plain, values=accuracy.measure(plain) | membership.measure(plain))


@cache
def measured(seed: int = 0, forget_classes: tuple[int, ...] = (1,)) -> Measured:
    """Every metric of a small untrained network; the images do not depend on ``seed``."""
    return metrics.measure(a_subject(seed, forget_classes, SETS | {"forget": 24}))


def a_subject(seed: int = 0, forget_classes: tuple[int, ...] = (1,), sizes=SETS) -> Subject:
    """Class-wise, the forget set is of the forgotten class and the retain set of the others."""
    fixed = torch.Generator().manual_seed(99)
    kept = [label for label in range(4) if label not in forget_classes]
    allowed = {"forget": list(forget_classes) or kept, "retain": kept}
    samples = {}
    for name, n in sizes.items():
        labels = torch.tensor(allowed.get(name, range(4)))
        labels = labels[torch.randint(len(labels), (n,), generator=fixed)]
        noise = torch.rand(n, 1, 2, 2, generator=fixed)
        shown = nn.functional.one_hot(labels, 4).view(n, 1, 2, 2)
        samples[name] = Samples((noise + shown) / 2, labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    objective = Classification()
    said = metrics.outputs_of(model, objective, samples, forget_classes=forget_classes)
    return Subject(
        model=model,
        objective=objective,
        samples=samples,
        outputs=said,
        original_accuracy=accuracy.measure(said)["FA"],
    )


@pytest.mark.parametrize("forget_classes", [(), (1,), (0, 3)])
def test_accuracies_equal_the_loop(forget_classes):
    plain = outputs(forget_classes=forget_classes)
    expected = {
        "FA": oracles.accuracy(plain.probabilities["forget"], plain.labels["forget"]),
        "RA": oracles.accuracy(plain.probabilities["retain"], plain.labels["retain"]),
    }
    test = plain.probabilities["test"], plain.labels["test"]
    expected["TA"] = oracles.accuracy(*test, keep=lambda label: label not in forget_classes)
    if forget_classes:
        expected["TFA"] = oracles.accuracy(*test, keep=lambda label: label in forget_classes)
    assert accuracy.measure(plain) == pytest.approx(expected, abs=1e-12)  # one division


@pytest.mark.parametrize("forget_classes", [(), (1,)])
def test_the_average_gap_equals_the_loop(forget_classes):
    judged, reference = (of_outputs(outputs(seed, forget_classes)) for seed in (0, 1))
    found = average_gap.compare(judged, reference)["gap"]
    assert found == pytest.approx(oracles.average_gap(judged.values, reference.values), abs=1e-12)
    assert found > 1


def test_the_average_gap_counts_points_of_the_five_values_alone():
    zero = dict.fromkeys(average_gap.OVER, 0.0)
    judged = Measured(outputs=outputs(), values=zero | {"FA": 10.0, "TFA": -5.0, "other": 99.0})
    reference = Measured(outputs=outputs(), values=zero | {"other": 0.0})
    assert average_gap.compare(judged, reference) == {"gap": 3.0, "gap_acc": 3.75}


def test_the_gap_of_accuracies_leaves_mia_out():
    zero = dict.fromkeys(average_gap.OVER, 0.0)
    judged = Measured(outputs=outputs(), values=zero | {"MIA": 100.0, "TA": 1.0})
    reference = Measured(outputs=outputs(), values=zero)
    assert average_gap.compare(judged, reference) == {"gap": 20.2, "gap_acc": 0.25}


def test_the_average_gap_misses_a_value_of_the_reference():
    judged, reference = Measured(outputs=outputs(), values={"FA": 1.0}), Measured(outputs=outputs())
    with pytest.raises(KeyError, match="FA"):
        average_gap.compare(judged, reference)


@pytest.mark.parametrize("forget_classes", [(), (1,)])
def test_a_model_has_no_distance_to_itself(forget_classes):
    own = measured(forget_classes=forget_classes)
    found = metrics.compare(own, own)
    wanted = {"low": 0.0, "high": 1.0}
    aims = {name: metrics.about()[name].aim for name in found}
    judged = {name: value for name, value in found.items() if aims[name] in wanted}
    assert judged == {name: wanted[aims[name]] for name in judged}
    assert {"gap", "ToW", "TV", "TV_forget", "KL", "JS", "W1_published"} <= judged.keys()


def test_every_value_is_named_in_the_order_of_the_tables():
    found = {}
    for classes in ((), (1,)):
        judged = measured(0, classes)
        values = metrics.compare(judged, measured(1, classes))
        assert judged.values.items() <= values.items()
        assert list(values) == [name for name in metrics.about() if name in values]
        # What is compared has an aim of its own; what one model has is held against the reference.
        for name in values:
            assert (metrics.about()[name].aim == "reference") == (name in judged.values)
        found |= values | metrics.alone(judged)
    families = (m for m in metrics.modules() if hasattr(m, "over_models"))
    assert (
        found.keys() | {n for m in families for n in m.ABOUT}
        == metrics.about("classification").keys()
    )


@pytest.mark.parametrize("forget_classes", [(), (1,), (0, 3)])
@pytest.mark.parametrize("lacking", ["nothing", "forget", "head", "validation of the class"])
def test_what_is_absent_is_named_and_nothing_else(forget_classes, lacking):
    fewer = {"forget": 1} if lacking == "forget" else {}
    subject = a_subject(forget_classes=forget_classes, sizes=SETS | {"forget": 24} | fewer)
    outputs, samples = subject.outputs, dict(subject.samples)
    if lacking == "validation of the class":
        keep = outputs.labels["validation"] != outputs.labels["forget"][0]
        outputs = changed(outputs, "validation", keep)
        samples["validation"] = samples["validation"][torch.from_numpy(keep)]
    elif lacking == "head":
        outputs = replace(outputs, features={})
    found = metrics.measure(replace(subject, outputs=outputs, samples=samples)).values
    head = lacking != "head"
    absent = metrics.absent("classification", outputs.labels, forget_classes, head=head)
    of_one_model = {
        name
        for module in metrics.modules()
        if hasattr(module, "measure") or hasattr(module, "attack")
        for name in module.ABOUT
    }
    assert found.keys() | absent.keys() == of_one_model
    assert not found.keys() & absent.keys()
    assert all(why.startswith("needs ") for why in absent.values())
    expected = {
        "forget": "relearn_auc",
        "head": "probe_5",
        "validation of the class": "probe",
        "nothing": "TFA",
    }[lacking]
    assert (expected in absent) == (lacking != "nothing" or not forget_classes)


def test_without_a_reference_there_are_estimates_and_no_distances():
    judged = measured()
    values = metrics.alone(judged)
    assert judged.values.items() <= values.items()
    assert values.keys() - judged.values.keys() == {"JSD_unseen"}
    assert "JSD_unseen" not in metrics.compare(judged, judged)


def test_every_metric_says_how_to_read_it():
    groups = [about.group for about in metrics.about().values()]
    assert tuple(metrics.GROUPS) == get_args(metrics.Group)
    assert sorted(groups, key=list(metrics.GROUPS).index) == groups
    for about in metrics.about().values():
        assert about.group in metrics.GROUPS
        assert about.aim in get_args(metrics.About.__annotations__["aim"])
        assert about.meaning


def test_two_metrics_may_not_share_a_name(monkeypatch):
    monkeypatch.setattr(membership, "ABOUT", {"FA": membership.ABOUT["MIA"]})
    with pytest.raises(ValueError, match=r"imu\.metrics\.membership repeats the metric \['FA'\]"):
        metrics.about()


def test_tfa_is_absent_sample_wise():
    judged = measured(forget_classes=())
    assert "TFA" not in metrics.compare(judged, judged)
    assert "TFA" in measured(forget_classes=(1,)).values


@pytest.mark.parametrize("fault", ["another label", "fewer samples", "fewer sets"])
def test_a_reference_on_other_samples_is_refused(fault):
    plain = outputs()
    if fault == "fewer samples":
        other = changed(plain, "validation", np.arange(23))
    elif fault == "another label":
        other = replace(plain, labels=plain.labels | {"test": (plain.labels["test"] + 1) % 4})
    else:
        other = replace(plain, labels={k: v for k, v in plain.labels.items() if k != "test"})
    values = of_outputs(plain).values
    with pytest.raises(ValueError, match="different samples"):
        metrics.compare(
            Measured(outputs=plain, values=values), Measured(outputs=other, values=values)
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(value):
    own = measured()
    broken = replace(own, values=dict(own.values) | {"MIA": value})
    with pytest.raises(FloatingPointError, match=r"not finite.*'MIA'"):
        metrics.compare(broken, own)


@pytest.mark.parametrize("name", ["forget", "retain", "test"])
def test_an_empty_set_has_no_accuracy(name):
    with pytest.raises(ValueError, match=f"no samples to measure accuracy on: {name}"):
        accuracy.measure(changed(outputs(), name, np.zeros(0, dtype=int)))


def test_a_forgotten_class_without_test_samples_has_no_accuracy():
    plain = outputs()
    with pytest.raises(ValueError, match="test, forgotten classes"):
        accuracy.measure(changed(plain, "test", plain.labels["test"] != 1))


NAMES = """
import sys
from imu import metrics
from tasks import report, split, track
from tasks.tracking import tracker
metrics.about()
print(sorted({"torch", "sklearn"} & sys.modules.keys()))
"""


def test_who_asks_what_metrics_mean_does_not_wait_for_torch() -> None:
    """The report and what logs to MLflow would, for seconds."""
    found = subprocess.run(
        [sys.executable, "-c", NAMES], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
