"""What ``import imu`` gives: unlearn, influence, evaluate, verdict, as thin functions.

They call what the stages of the pipeline call, with the same results.

Samples lie on the device of the network; images are numbers in [0, 1] or integers as stored: others
are refused. ``objective`` says what the network sees of them: ``Classification(mean=…, std=…)``
where it was trained on normalised images, ``Classification(bounds=(low, high))`` where it takes
other numbers as they are.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from imu import discovery, influences, methods, metrics, verdicts
from imu.bounds import SEED, require
from imu.metrics import accuracy
from imu.objectives import Objective, Samples
from imu.objectives.classification import Classification
from imu.unseen import unseen_by

__all__ = [
    "Classification",
    "Samples",
    "Unlearned",
    "evaluate",
    "influence",
    "unlearn",
    "verdict",
]

SETS = ("forget", "retain", "validation", "test")
OVERSHOOT = 0.25  # of the width of the bounds: resizing leaves images a little beyond them
TASK = Classification()


class Unlearned(NamedTuple):
    model: nn.Module
    course: list[methods.Step]  # before the first update, and as it went


def unlearn(
    model: nn.Module,
    forget: Samples,
    *,
    method: str = "imu",
    classes: Sequence[int] = (),
    heldout: Samples | None = None,
    retain: Samples | None = None,
    objective: Objective = TASK,
    config: Any = None,
    seed: int = 0,
) -> Unlearned:
    """A copy of ``model`` that forgot ``forget``, and its course; ``model`` stays as it is.

    method: a file in ``imu/methods``, which has its formula and source. classes: labels of
    ``forget`` that are forgotten whole, until no sample of theirs is answered right.
    heldout: where samples are forgotten, some that ``model`` was not trained on, such as validation
    data: forgetting stops where ``forget`` is answered as they are (``imu.unseen``). retain:
    training samples that stay. Handed to the methods that need them alone; they also tell how much
    was gained by training, which without them ``forget`` alone has to tell.
    config: the method's ``Config``; None: its defaults, which were chosen on small images.

    Influence, where a method needs it, is that of ``influence`` by default, made into weights by
    ``imu.influences.ascent_weights``.

    Raises ValueError for an unknown method, another method's config, neither classes nor held-out
    samples, a retain set that the method needs and lacks, or an empty set; UnlearningError and
    FloatingPointError where the method gives up or diverges.
    """
    require("seed", seed, SEED)
    module = discovery.load("imu.methods", method)
    config = module.Config() if config is None else config
    if not isinstance(config, module.Config):
        raise ValueError(f"config must be an imu.methods.{method}.Config, got {config!r}")
    _require_inputs(objective, {"forget": forget, "heldout": heldout, "retain": retain})
    target = _target(model, forget, tuple(classes), heldout, retain, objective)

    def weights() -> Tensor:
        given = influences.Config()
        return influences.ascent_weights(
            influence(model, forget, objective=objective, config=given),
            score=given.score,
            clip_quantile=given.clip_quantile,
            top_fraction=given.top_fraction,
        )[0]

    available: dict[str, Callable[[], Any]] = {"forget": lambda: target, "influence": weights}
    if retain is not None:
        available["retain"] = lambda: retain
    unlearned = copy.deepcopy(model)
    course = methods.run(method, unlearned, objective, config, seed=seed, available=available)
    return Unlearned(unlearned, list(course))


def influence(
    model: nn.Module,
    samples: Samples,
    *,
    query: Samples | None = None,
    objective: Objective = TASK,
    config: influences.Config | None = None,
) -> Tensor:
    """How much each sample matters to ``model``: scores (n,), in its precision.

        s_i = −⟨g_i, (F + λ)⁻¹ ḡ⟩

    g_i: gradient of the sample's loss, ḡ their mean, F their second moment. Negative: removing it
    agrees with forgetting all. Source: arXiv 2508.01620, section 3. ``config`` has self-influence,
    other parameters than the head's, other curvatures, damping λ.

    query: samples with the labels that are asked about, such as the predicted ones. Then what each
    of ``samples``, which ``model`` was trained on, did for each of these predictions: (n, m),

        s_iq = ⟨g_i, (F + λ)⁻¹ g_q⟩

    positive where it made the label more likely (Koh & Liang 2017, arXiv 1703.04730, eq. 2).

    Raises ValueError for no sample or unknown parameters, and FloatingPointError for a score that
    is not finite.
    """
    _require_inputs(objective, {"samples": samples, "query": query})
    config = config or influences.Config()
    if query is None:
        return influences.influence(model, objective, samples, config)
    return influences.pairs(model, objective, samples, query, config)


def evaluate(
    model: nn.Module,
    sets: Mapping[str, Samples],
    *,
    original: nn.Module,
    reference: nn.Module | None = None,
    classes: Sequence[int] = (),
    objective: Objective = TASK,
    seed: int = 0,
) -> dict[str, float]:
    """Every metric and attack of ``model`` by name, and its distances to ``reference``.

    sets: "forget", "retain", "validation" and "test"; the latter two with all classes.
    original: before unlearning: relearning has to regain its accuracy. reference: retrained without
    the forget set; None: estimates stand in place of distances. classes: forgotten whole. seed: of
    attacks that draw samples.

    ``imu.metrics.about()`` says how to read each name, ``imu.metrics.absent`` what is left out and
    why. Models stay as they are. Raises ValueError for other sets, and FloatingPointError for a
    value that is not finite.
    """
    require("seed", seed, SEED)
    _require_sets(sets)
    _require_inputs(objective, sets)

    def said(of: nn.Module) -> metrics.Outputs:
        return metrics.outputs_of(of, objective, sets, forget_classes=tuple(classes), seed=seed)

    judged = metrics.measure(
        metrics.Subject(
            model=model,
            objective=objective,
            samples=sets,
            outputs=said(model),
            original_accuracy=accuracy.measure(said(original))["FA"],
        )
    )
    if reference is None:
        return metrics.alone(judged)
    return metrics.compare(judged, metrics.of_outputs(said(reference)))


def verdict(
    values: Mapping[str, float],
    reference: Mapping[str, float],
    sets: Mapping[str, Samples],
    *,
    retrained: Sequence[Mapping[str, float]] = (),
    original: Mapping[str, float] | None = None,
    mask: Mapping[str, float] | None = None,
    classes: Sequence[int] = (),
    config: verdicts.Config | None = None,
) -> verdicts.Verdict:
    """Whether a model is indistinguishable from retraining, or what fails: ``.outcome``.

    values, reference, retrained: what ``evaluate`` gave, with the same ``sets``, ``classes`` and
    reference, of the model, of the reference itself, and of models retrained with other seeds. A
    test is passed while

        distance to the reference <= max over ``retrained`` of the same + margin

    with margins of ``config``, never below what one sample is worth; outcomes, and which test
    belongs to which, in ``imu.verdicts``. ``.failed`` has the tests that failed. It is evidence
    from these tests, not a guarantee.

    original, mask: what ``evaluate`` gave of the model before unlearning, and of one that hides the
    classes behind a mask: where these pass as well the verdict is "no evidence".

    Raises ValueError for other sets and for classes that are no labels of the forget set, KeyError
    where one model lacks what another has.
    """
    _require_sets(sets)
    methods.require_labels(classes, sets["forget"])
    return verdicts.judge(
        values,
        reference,
        retrained,
        config or verdicts.Config(),
        sizes=verdicts.sizes({name: s.targets.tolist() for name, s in sets.items()}, classes),
        class_wise=bool(classes),
        original=original,
        mask=mask,
    )


def _target(
    model: nn.Module,
    forget: Samples,
    classes: tuple[int, ...],
    heldout: Samples | None,
    retain: Samples | None,
    objective: Objective,
) -> methods.ForgetSet:
    """The forget set, and where forgetting stops."""
    if classes:
        return methods.ForgetSet.whole(forget, classes)
    if heldout is None or len(heldout) == 0:
        raise ValueError(
            "classes or heldout must be given: classes are forgotten whole, samples until the "
            "network answers them as it does held-out ones"
        )

    trained = [of for of in (forget, retain) if of is not None]
    return methods.ForgetSet.as_unseen(forget, unseen_by(model, objective, trained, heldout))


def _require_inputs(objective: Objective, sets: Mapping[str, Samples | None]) -> None:
    """Numbers far beyond the bounds are not what the network was trained on, such as 0 to 255."""
    for name, samples in sets.items():
        images = samples.inputs if samples else None
        if objective.bounds is None or not isinstance(images, Tensor) or not images.numel():
            continue
        if not images.is_floating_point():
            continue
        low, high = objective.bounds
        least, most = images.min().item(), images.max().item()
        beyond = OVERSHOOT * (high - low)
        if least < low - beyond or most > high + beyond:
            raise ValueError(
                f"{name} must have numbers in [{low:g}, {high:g}], the bounds of the objective, or "
                f"integers as stored, got {least:g} to {most:g}: divide them, or give "
                "objective=imu.Classification(bounds=(low, high)) where the network takes them so"
            )


def _require_sets(sets: Mapping[str, Samples]) -> None:
    if sets.keys() != set(SETS):
        raise ValueError(f"sets must be {', '.join(SETS)}, got {', '.join(sets) or 'none'}")
