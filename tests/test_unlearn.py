import copy
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu import discovery, unlearn
from imu.models import features_and_logits, head, resnet_small
from imu.unlearn import ForgetSet
from tests import oracles

torch.set_num_threads(1)
METHODS = unlearn.names()
HEAD_ONLY = [("gradient_ascent", {"parameters": "head"}), ("imu", {}), ("imu_published", {})]
STOPPING = [("gradient_ascent", {}), ("gradient_ascent", {"parameters": "head"}), ("imu", {})]


def config(method: str, **given):
    """The defaults, with those of ``given`` that the method has."""
    kind = discovery.load("imu.unlearn", method).Config
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})


def steps_field(method: str) -> str | None:
    own = {f.name for f in fields(discovery.load("imu.unlearn", method).Config)}
    return next((name for name in ("max_steps", "epochs", "steps") if name in own), None)


STEPPING = [method for method in METHODS if steps_field(method)]


def original() -> tuple[nn.Module, Tensor, Tensor]:
    """A network with settled BatchNorm statistics, images, and labels that it gets all right."""
    torch.manual_seed(0)
    model = resnet_small.build(resnet_small.Config(width=3), 1, 3)
    images = torch.randn(60, 1, 8, 8)
    for _ in range(30):
        model(images)
    features = features_and_logits(model, images)[0]
    with torch.no_grad():  # centred logits: every class is predicted
        head(model).weight.mul_(20)
        head(model).bias.copy_(-head(model).weight @ features.mean(0))
    return model, images, features_and_logits(model, images)[1].argmax(1)


def class_wise() -> tuple[nn.Module, ForgetSet]:
    model, images, labels = original()
    of = labels == 1
    assert of.sum() >= 4
    return model, ForgetSet(images=images[of], labels=labels[of], classes=(1,), target_accuracy=0.0)


def sample_wise(target: float = 50.0) -> tuple[nn.Module, ForgetSet]:
    model, images, labels = original()
    return model, ForgetSet(
        images=images[:20], labels=labels[:20], classes=(), target_accuracy=target
    )


def available(forget: ForgetSet, **more):
    weights = torch.linspace(1.0, 0.0, len(forget.labels), dtype=forget.images.dtype)
    return {"forget": lambda: forget, "influence": lambda: weights} | more


def run(method: str, model: nn.Module, forget: ForgetSet, seed: int = 0, **given):
    kwargs = {"seed": seed, "available": available(forget)}
    return list(unlearn.run(method, model, config(method, **given), **kwargs))


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name for (name, a), b in pairs if not torch.equal(a, b)}


def running(names: set[str]) -> set[str]:
    return {name for name in names if "running_" in name or "num_batches" in name}


@pytest.mark.parametrize("case", [class_wise, sample_wise])
@pytest.mark.parametrize("method", STEPPING)
def test_zero_steps_change_nothing(method, case):
    model, forget = case()
    before = copy.deepcopy(model)
    steps = run(method, model, forget, **{steps_field(method): 0})
    assert [step.step for step in steps] == [0]
    assert changed(before, model) == set()


@pytest.mark.parametrize("case", [class_wise, sample_wise])
@pytest.mark.parametrize("method", METHODS)
def test_steps_tell_the_state_of_the_model_when_they_are_yielded(method, case):
    model, forget = case()
    seen = []
    given = {"seed": 0, "available": available(forget)}
    for step in unlearn.run(method, model, config(method), **given):
        logits = features_and_logits(copy.deepcopy(model), forget.images)[1]
        # 1e-5: float32, and imu multiplies cached features in place of the whole network.
        assert step.loss == pytest.approx(F.cross_entropy(logits, forget.labels).item(), abs=1e-5)
        assert step.accuracy == pytest.approx(oracles.accuracy(logits, forget.labels), abs=1e-9)
        seen.append(step.step)
    assert seen[0] == 0
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_the_weights(method):
    models = []
    for elsewhere, seed in enumerate((5, 5, 6)):
        model, forget = sample_wise(target=50.0)
        torch.manual_seed(elsewhere)  # what others draw does not matter
        run(method, model, forget, seed=seed, batch_size=4, learning_rate=1e-3)
        models.append(model)
    assert changed(*models[:2]) == set()
    if hasattr(config(method), "batch_size"):
        assert changed(*models[1:]) != set()


@pytest.mark.parametrize("method", METHODS)
def test_the_data_stay_as_they_were(method):
    model, forget = class_wise()
    given = {name: load() for name, load in available(forget).items()}
    before = copy.deepcopy(given)
    loaders = {"forget": lambda: forget, "influence": lambda: given["influence"]}
    list(unlearn.run(method, model, config(method), seed=0, available=loaders))
    assert torch.equal(forget.images, before["forget"].images)
    assert torch.equal(forget.labels, before["forget"].labels)
    assert torch.equal(given["influence"], before["influence"])


def test_an_empty_forget_set_is_refused():
    with pytest.raises(ValueError, match="forget set is empty"):
        ForgetSet(
            images=torch.ones(0, 1, 8, 8), labels=torch.ones(0), classes=(), target_accuracy=0.0
        )


@pytest.mark.parametrize("method", METHODS)
def test_only_what_a_method_declares_is_handed_over(method):
    model, forget = class_wise()
    loaded = []

    def counted(name, load):
        return lambda: loaded.append(name) or load()

    loaders = {name: counted(name, load) for name, load in available(forget).items()}
    loaders["retain"] = counted("retain", lambda: pytest.fail("the retain set was read"))
    list(unlearn.run(method, model, config(method), seed=0, available=loaders))
    needs = discovery.load("imu.unlearn", method).NEEDS
    assert sorted(loaded) == sorted(needs)
    for need in needs:
        less = {name: load for name, load in loaders.items() if name != need}
        with pytest.raises(ValueError, match=rf"{method} needs \['{need}'\]"):
            next(unlearn.run(method, model, config(method), seed=0, available=less))


def test_an_unknown_method_is_told_the_choices():
    model, forget = class_wise()
    with pytest.raises(ValueError, match="no 'amnesia': choose from " + ", ".join(METHODS)):
        next(unlearn.run("amnesia", model, None, seed=0, available=available(forget)))


@pytest.mark.parametrize("method", METHODS)
def test_the_forget_loss_rises(method):
    model, forget = class_wise()
    before = copy.deepcopy(model)
    steps = run(method, model, forget, freeze_batch_norm=True, learning_rate=0.05)
    assert steps[0].accuracy == 100.0
    if method == "nothing":
        assert changed(before, model) == set()
    else:
        assert steps[-1].loss > steps[0].loss + 0.01


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_statistics_stay(method):
    model, forget = class_wise()
    before = copy.deepcopy(model)
    run(method, model, forget, freeze_batch_norm=True, learning_rate=1e-3, batch_size=4)
    assert running(changed(before, model)) == set()


def test_batch_norm_statistics_drift_as_published():
    model, forget = class_wise()
    before = copy.deepcopy(model)
    run("imu_published", model, forget, freeze_batch_norm=False)
    names = changed(before, model)
    assert running(names) == running(set(model.state_dict()))
    assert names - running(names) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(("method", "given"), HEAD_ONLY)
def test_only_the_head_changes(method, given):
    model, forget = class_wise()
    before = copy.deepcopy(model)
    run(method, model, forget, freeze_batch_norm=True, **given)
    assert changed(before, model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", ["imu", "logit_mask"])
def test_only_the_rows_of_forgotten_classes_change(method):
    model, forget = class_wise()
    before = head(copy.deepcopy(model))
    run(method, model, forget)
    for now, then in zip(head(model).parameters(), before.parameters(), strict=True):
        assert [torch.equal(a, b) for a, b in zip(now, then, strict=True)] == [True, False, True]


@pytest.mark.parametrize(("method", "given"), STOPPING)
@pytest.mark.parametrize(("case", "target"), [(class_wise, 0), (sample_wise, 50)])
def test_ascent_stops_at_the_target(method, given, case, target):
    model, forget = case()
    *earlier, last = run(method, model, forget, learning_rate=0.05, epochs=100, **given)
    assert last.accuracy <= target
    assert min(step.accuracy for step in earlier) > target


@pytest.mark.parametrize(("method", "given"), STOPPING)
def test_a_model_at_the_target_stays(method, given):
    model, forget = sample_wise(target=100.0)
    before = copy.deepcopy(model)
    assert len(run(method, model, forget, **given)) == 1
    assert changed(before, model) == set()


def test_imu_that_misses_the_target_is_an_error():
    model, forget = class_wise()
    with pytest.raises(RuntimeError, match=r"100.00 % after max_steps = 2, above .* 0.00 %"):
        run("imu", model, forget, step=1e-6, max_steps=2)


def test_imu_without_weights_is_an_error():
    model, forget = class_wise()
    loaders = available(forget) | {"influence": lambda: torch.zeros(len(forget.labels))}
    with pytest.raises(ValueError, match="weights are all 0"):
        next(unlearn.run("imu", model, config("imu"), seed=0, available=loaders))


@pytest.mark.parametrize("method", STEPPING)
def test_a_diverging_run_names_the_step(method):
    model, forget = sample_wise(target=-1.0)
    with pytest.raises(
        FloatingPointError, match=rf"{method}: .*(nan|inf |not finite).*after step [1-9]"
    ):
        run(method, model, forget, learning_rate=1e38, step=1e300, batch_size=4)


def test_logit_mask_gives_probability_0():
    model, forget = class_wise()
    run("logit_mask", model, forget)
    probabilities = features_and_logits(model, torch.randn(50, 1, 8, 8))[1].softmax(1)
    assert probabilities.dtype == torch.float32
    assert probabilities[:, 1].abs().max() == 0.0


def test_logit_mask_does_nothing_when_no_class_is_forgotten_whole():
    model, forget = sample_wise()
    before = copy.deepcopy(model)
    assert len(run("logit_mask", model, forget)) == 1
    assert changed(before, model) == set()
