"""What a set of measurements says of one unlearned model, in one of five outcomes.

A test holds one metric of the model against the retrained reference. It is passed while the model
lies no farther on the bad side than the *floor* does (models retrained with other seeds, the
largest distance among them) plus a margin. The first outcome of which a test fails is the verdict:

    not forgotten     it still answers as if it had been trained on the forget set
    utility lost      it answers worse than the reference on what it was to keep
    masked only       its accuracies pass, but its features keep what was to be forgotten
    told apart        something else gives it away: it forgot more than retraining does, say
    indistinguishable from retraining, on these tests

A verdict is empirical evidence from the tests that were made, not a guarantee.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from imu import metrics

Outcome = Literal["not forgotten", "utility lost", "masked only", "told apart", "indistinguishable"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Side = Literal["above", "below", "apart"]
# Correctness tells nothing beyond FA, and the attack on all probabilities differs between retrained
# models by more than any margin would allow.
MEMBERSHIP = ("MIA", "MIA_entropy", "MIA_modified")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How far beyond the floor a model may lie from the reference."""

    forgetting: float = 2.0  # points of FA and TFA
    utility: float = 2.0  # points of RA and TA
    membership: float = 5.0  # points of each membership attack
    features: float = 10.0  # points of probe_5, proto_5 and relearn_auc
    distance: float = 0.04  # TV of softmax outputs
    samples: float = 10.0  # points of U-LiRA's advantage

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class Criterion(NamedTuple):
    """side: where a model fails. class_wise: None where the test holds for both scenarios."""

    outcome: Outcome
    metric: str
    side: Side
    margin: str
    class_wise: bool | None = None


CRITERIA = (
    Criterion("not forgotten", "FA", "above", "forgetting"),
    Criterion("not forgotten", "TFA", "above", "forgetting", True),
    # After class-wise forgetting the attacks extrapolate and flip between 0 and 100.
    *(Criterion("not forgotten", name, "below", "membership", False) for name in MEMBERSHIP),
    Criterion("utility lost", "RA", "below", "utility"),
    Criterion("utility lost", "TA", "below", "utility"),
    Criterion("masked only", "probe_5", "above", "features"),
    Criterion("masked only", "proto_5", "above", "features", True),
    Criterion("masked only", "relearn_auc", "above", "features"),
    Criterion("told apart", "FA", "below", "forgetting"),
    # Features that know less than a retrained model's show that something was hidden or broken.
    Criterion("told apart", "probe_5", "below", "features"),
    Criterion("told apart", "proto_5", "below", "features", True),
    Criterion("told apart", "relearn_auc", "below", "features"),
    *(Criterion("told apart", name, "above", "membership", False) for name in MEMBERSHIP),
    Criterion("told apart", "TV", "apart", "distance"),
    # Retrained models need not agree on what a class is called that they never saw.
    Criterion("told apart", "TV_forget", "apart", "distance", False),
    Criterion("told apart", "U_LiRA", "apart", "samples"),
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
        return self.excess > self.allowed


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
    floor: Sequence[Mapping[str, float]],
    config: Config,
    *,
    class_wise: bool,
) -> Verdict:
    """Hold the metrics of ``model`` against those of the reference and of the floor's models.

    Each mapping holds what ``metrics.compare`` gave. Raises KeyError when one of them lacks a
    metric that a test needs and another one has.
    """
    results = []
    for test in CRITERIA:
        if test.class_wise not in (None, class_wise):
            continue
        aim = metrics.about()[test.metric].aim
        needed = [model, *floor, *([reference] if aim == "reference" else [])]
        known = [test.metric in values for values in needed]
        if not any(known):
            continue
        if not all(known):
            raise KeyError(f"{test.metric} was not measured on every model: it cannot be judged")
        distances = [_distance(values, reference, test.metric, aim) for values in (model, *floor)]
        signed = {"above": 1, "below": -1, "apart": 1}[test.side] * distances[0]
        results.append(
            Result(
                test,
                model[test.metric],
                reference[test.metric] if aim == "reference" else 0.0,
                signed,
                max([0.0, *(abs(d) if aim == "reference" else d for d in distances[1:])])
                + getattr(config, test.margin),
            )
        )
    failed = {result.test.outcome for result in results if result.failed}
    return Verdict(next((o for o in OUTCOMES if o in failed), "indistinguishable"), results)


def _distance(
    values: Mapping[str, float], reference: Mapping[str, float], name: str, aim: str
) -> float:
    """Signed distance to the reference; a metric that is a distance already is one."""
    return values[name] - (reference[name] if aim == "reference" else 0.0)
