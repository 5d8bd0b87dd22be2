"""What a set of measurements says of one unlearned model, in one of six outcomes.

A test holds one metric of the model against the retrained reference. It is passed while the model
lies no farther on the bad side than the *retraining variability* (the largest distance among models
retrained with other seeds) plus a margin, which is never below what one sample is worth, 100/n
points of the n that the metric counts. The first outcome of which a test fails is the verdict:

    utility lost      it answers worse than the reference on what it was to keep
    not forgotten     it still answers as if it had been trained on the forget set
    masked only       its accuracies pass, but its features keep what was to be forgotten
    distinguishable   something else gives it away: it forgot more than retraining does, say
    no evidence       all tests passed, and one that forgot nothing passes as well
    indistinguishable from retraining, on these tests

Utility comes first: what a collapsed model says of the forget set tells nothing of forgetting,
least of all to attacks that learn from what it says of other samples.

Tests have power where they tell what forgot nothing: the original has to be *not forgotten*, and
where a mask can hide what was to be forgotten, it has to fail some test. Where a class is forgotten
and none was made, the original stands for it: a mask leaves its features as they are, so that they
have to be *masked only*. Else passing shows nothing.

A verdict is empirical evidence from the tests that were made, not a guarantee.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from imu import metrics
from imu.bounds import check_fields

Outcome = Literal[
    "utility lost",
    "not forgotten",
    "masked only",
    "distinguishable",
    "no evidence",
    "indistinguishable",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)  # the gravest first
PASSED: tuple[Outcome, ...] = ("no evidence", "indistinguishable")  # no test failed
Side = Literal["above", "below", "apart"]
# Samples that a metric counts. half: of the forget set, which relearning is measured on;
# forgotten, kept: test samples of classes forgotten whole, and the others.
Counted = Literal["forget", "half", "retain", "forgotten", "kept"]
ROUNDING = 1e-9  # points
# Correctness tells nothing beyond FA, and the attack on all probabilities differs between retrained
# models by more than any margin would allow.
MEMBERSHIP = ("MIA", "MIA_entropy", "MIA_modified")
ATTACKS = ("AUC_loss", "AUC_zlib", "AUC_min_k", "AUC_min_k_pp")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How far beyond retraining variability a model may lie from the reference.

    By one sample it always may. On features, where the original lies beyond retraining variability
    and ``features_share`` of its distance, by no more than that share: a margin that fits one data
    set hides a mask on another. Elsewhere the test is blind whatever the margin is.
    """

    forgetting: float = 2.0  # points of FA and TFA
    utility: float = 2.0  # points of RA and TA
    membership: float = 5.0  # points of each membership attack
    features: float = 10.0  # points of probe_1, proto_1 and relearn_auc
    features_share: float = 0.25  # at most, of the original's distance, where that is then noticed
    distance: float = 0.04  # TV of softmax outputs
    samples: float = 10.0  # points of U-LiRA's advantage
    retrieval: float = 5.0  # points of mAP and rank-1, of people
    divergence: float = 0.02  # nats of KL, of sequences
    stays: float = 0.1  # nats of KL_truth_retain and KL_truth_test

    def __post_init__(self) -> None:
        check_fields(self, **dict.fromkeys(self.__dataclass_fields__, ">= 0"))
        check_fields(self, features_share="in [0, 1)")


class Criterion(NamedTuple):
    """side: where a model fails. counted: None where no share of samples is measured.

    class_wise: None where the test holds for both scenarios.
    """

    outcome: Outcome
    metric: str
    side: Side
    margin: str
    counted: Counted | None
    class_wise: bool | None = None


# Of images, people, texts and sequences; a test is passed over whose metric was not measured.
CRITERIA = (
    Criterion("utility lost", "RA", "below", "utility", "retain"),
    Criterion("utility lost", "TA", "below", "utility", "kept"),
    Criterion("not forgotten", "FA", "above", "forgetting", "forget"),
    Criterion("not forgotten", "TFA", "above", "forgetting", "forgotten", True),
    # After class-wise forgetting the attacks extrapolate and flip between 0 and 100.
    *(
        Criterion("not forgotten", name, "below", "membership", "forget", False)
        for name in MEMBERSHIP
    ),
    Criterion("masked only", "probe_1", "above", "features", "forget"),
    Criterion("masked only", "proto_1", "above", "features", "forget", True),
    Criterion("masked only", "relearn_auc", "above", "features", "half"),
    Criterion("distinguishable", "FA", "below", "forgetting", "forget"),
    # Features that know less than a retrained model's show that something was hidden or broken.
    Criterion("distinguishable", "probe_1", "below", "features", "forget"),
    Criterion("distinguishable", "proto_1", "below", "features", "forget", True),
    Criterion("distinguishable", "relearn_auc", "below", "features", "half"),
    *(
        Criterion("distinguishable", name, "above", "membership", "forget", False)
        for name in MEMBERSHIP
    ),
    Criterion("distinguishable", "TV", "apart", "distance", None),
    # Retrained models need not agree on what a class is called that they never saw.
    Criterion("distinguishable", "TV_forget", "apart", "distance", None, False),
    Criterion("distinguishable", "U_LiRA", "apart", "samples", None),
    # People. What is used is retrieval, so that it is what must be forgotten.
    Criterion("utility lost", "mAP_retain", "below", "retrieval", None),
    Criterion("utility lost", "mAP_new", "below", "retrieval", None),
    Criterion("not forgotten", "mAP_forget", "above", "retrieval", "forgotten"),
    Criterion("not forgotten", "R1_forget", "above", "retrieval", "forgotten"),
    Criterion("distinguishable", "mAP_forget", "below", "retrieval", "forgotten"),
    Criterion("distinguishable", "dAP_forget", "apart", "distance", None),
    Criterion("distinguishable", "dAP_retain", "apart", "distance", None),
    # Texts.
    Criterion("utility lost", "P_retain", "below", "utility", "retain"),
    Criterion("utility lost", "ROUGE_retain", "below", "utility", "retain"),
    Criterion("utility lost", "repetition", "above", "utility", "retain"),
    Criterion("not forgotten", "P_forget", "above", "forgetting", "forget"),
    Criterion("not forgotten", "ROUGE_forget", "above", "forgetting", "forget"),
    Criterion("not forgotten", "P_reworded", "above", "forgetting", "forget"),
    Criterion("not forgotten", "choice", "above", "forgetting", "forget"),
    *(Criterion("not forgotten", name, "above", "membership", "forget") for name in ATTACKS),
    Criterion("masked only", "P_4bit", "above", "features", "forget"),
    Criterion("masked only", "relearn_P", "above", "features", "half"),
    Criterion("distinguishable", "P_forget", "below", "forgetting", "forget"),
    Criterion("distinguishable", "ROUGE_forget", "below", "forgetting", "forget"),
    Criterion("distinguishable", "choice", "below", "forgetting", "forget"),
    *(Criterion("distinguishable", name, "below", "membership", "forget") for name in ATTACKS),
    Criterion("distinguishable", "relearn_P", "below", "features", "half"),
    Criterion("distinguishable", "dP_forget", "apart", "distance", "forget"),
    Criterion("distinguishable", "dP_retain", "apart", "distance", "retain"),
    Criterion("distinguishable", "KS", "apart", "distance", "forget"),
    # Sequences.
    Criterion("utility lost", "KL_truth_retain", "above", "stays", None),
    Criterion("utility lost", "KL_truth_test", "above", "stays", None),
    Criterion("not forgotten", "KL_forgotten", "below", "divergence", None),
    Criterion("masked only", "KL_relearn", "below", "divergence", None),
    Criterion("distinguishable", "KL_forgotten", "above", "divergence", None),
    Criterion("distinguishable", "KL_relearn", "above", "divergence", None),
    *(
        Criterion("distinguishable", name, "apart", "divergence", None)
        for name in ("KL_forget", "KL_retain", "KL_worst_forget", "KL_worst_retain")
    ),
)


class Result(NamedTuple):
    """One test of one model. excess: how far it lies on the bad side; it may be ``allowed``.

    reference: what it is held against; 0 for a metric that is a distance already.
    """

    test: Criterion
    value: float
    reference: float
    excess: float
    allowed: float

    @property
    def failed(self) -> bool:
        return self.excess > self.allowed + ROUNDING


class Verdict(NamedTuple):
    outcome: Outcome
    results: list[Result]

    @property
    def failed(self) -> list[Result]:
        """The tests that decided, in the order of the outcomes; [] when all were passed."""
        return [result for result in self.results if result.failed]

    @property
    def decisive(self) -> list[Result]:
        """The failed tests of the verdict's own outcome."""
        return [result for result in self.failed if result.test.outcome == self.outcome]


def judge(
    model: Mapping[str, float],
    reference: Mapping[str, float],
    retrained: Sequence[Mapping[str, float]],
    config: Config,
    *,
    sizes: Mapping[Counted, int],
    class_wise: bool,
    original: Mapping[str, float] | None = None,
    mask: Mapping[str, float] | None = None,
) -> Verdict:
    """Hold the metrics of ``model`` against those of the reference.

    retrained: of models retrained with other seeds; none: the margins alone count.
    original, mask: of models that forgot nothing, the latter behind a mask; they take those tests
    of the model that they have metrics for. None: whether these tests have power is not asked.
    Each mapping holds what ``metrics.compare`` gave. sizes: what the function of that name gives.
    Raises KeyError when one of them lacks a metric that a test needs and another one has.
    """

    given = (reference, retrained, config, sizes, class_wise, original or {})
    results = _results(model, *given)
    failed = {result.test.outcome for result in results if result.failed}
    if failed:
        return Verdict(next(outcome for outcome in OUTCOMES if outcome in failed), results)

    def told(other: Mapping[str, float]) -> set[Outcome]:
        """Outcomes of the tests that another one fails, of those that the model passed."""
        asked = {result.test.metric for result in results} & other.keys()
        found = _results({name: other[name] for name in asked}, *given, among=asked)
        return {result.test.outcome for result in found if result.failed}

    blind = original is not None and "not forgotten" not in told(original)
    blind |= mask is not None and not told(mask)
    inside = {r.test.metric for r in results if r.test.outcome == "masked only"}
    if class_wise and mask is None and original is not None and inside & original.keys():
        blind |= "masked only" not in told(original)
    return Verdict("no evidence" if blind else "indistinguishable", results)


def _results(
    model: Mapping[str, float],
    reference: Mapping[str, float],
    retrained: Sequence[Mapping[str, float]],
    config: Config,
    sizes: Mapping[Counted, int],
    class_wise: bool,
    original: Mapping[str, float],
    *,
    among: Collection[str] | None = None,
) -> list[Result]:
    """Every test; among: metrics, of these alone."""
    results, about = [], metrics.about()
    for test in CRITERIA:
        if test.class_wise not in (None, class_wise):
            continue
        if among is not None and test.metric not in among:
            continue
        aim, unit = about[test.metric].aim, about[test.metric].unit
        needed = [model, *retrained, *([reference] if aim == "reference" else [])]
        known = [test.metric in values for values in needed]
        if not any(known):
            continue
        if not all(known):
            raise KeyError(f"{test.metric} was not measured on every model: it cannot be judged")
        distances = [
            _distance(values, reference, test.metric, aim) for values in (model, *retrained)
        ]
        signed = {"above": 1, "below": -1, "apart": 1}[test.side] * distances[0]
        varies = max([0.0, *(abs(d) if aim == "reference" else d for d in distances[1:])])
        margin = getattr(config, test.margin)
        if test.margin == "features" and test.metric in original:
            apart = abs(_distance(original, reference, test.metric, aim))
            if varies < (1 - config.features_share) * apart:
                margin = min(margin, config.features_share * apart)
        results.append(
            Result(
                test,
                model[test.metric],
                reference[test.metric] if aim == "reference" else 0.0,
                signed,
                varies + max(margin, _one(test, unit, sizes)),
            )
        )
    return results


def sizes(labels: Mapping[str, Sequence[int]], forget_classes: Sequence[int]) -> dict[Counted, int]:
    """How many samples the metrics count, from the labels of "forget", "retain" and "test"."""
    forget, forgotten = len(labels["forget"]), sum(y in forget_classes for y in labels["test"])
    return {
        "forget": forget,
        "half": forget - forget // 2,
        "retain": len(labels["retain"]),
        "forgotten": forgotten,
        "kept": len(labels["test"]) - forgotten,
    }


def _one(test: Criterion, unit: str, sizes: Mapping[Counted, int]) -> float:
    """What one sample is worth: in points, or of a value in [0, 1] its share."""
    if test.counted is None:
        return 0.0
    return (100 if unit == "%" else 1) / sizes[test.counted]


def _distance(
    values: Mapping[str, float], reference: Mapping[str, float], name: str, aim: str
) -> float:
    """Signed distance to the reference; a metric that is a distance already is one."""
    return values[name] - (reference[name] if aim == "reference" else 0.0)
