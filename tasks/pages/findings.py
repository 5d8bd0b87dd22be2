"""What the table of results says, in plain sentences made from its numbers."""

import math
from collections.abc import Callable, Collection, Mapping, Set
from functools import cache
from typing import Literal, NamedTuple

import pandas as pd

from imu import metrics, verdicts

WORK = "RTE_work"  # the one column that ``tasks.evaluate`` adds to the metrics
TIME = "RTE_time"  # in seconds: differs from run to run, so it is shown, but not in the report
AIMS = {"reference": "the reference's value", "low": "0", "high": "1"}
# Unit and meaning of the columns that are no metrics.
COSTS = {
    WORK: ("×", "work of retraining / work of the method, influence included, counted in FLOPs"),
    TIME: ("×", "seconds of retraining / seconds of the method, influence included"),
}
GROUPS = {**metrics.GROUPS, "cost": "Cost"}
# What a reader asks, and the metrics that answer it: the reviewer's summary.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "Did it forget?": ("mAP_forget", "FA", "TFA", "MIA", "P_forget", "AUC_min_k", "KL_forgotten"),
    "What did it cost?": (
        *("mAP_retain", "mAP_new", "RA", "TA", "P_retain", "MU", "KL_truth_retain"),
        WORK,
    ),
    "Can anyone tell?": (
        *("TV", "U_LiRA", "JSD_unseen", "dAP_forget", "dP_forget", "KL_forget", "KL_retain"),
    ),
    "Would it come back?": (
        *("probe_1", "relearn_auc", "proto_1", "relearn_P", "P_4bit", "KL_relearn"),
    ),
}
# The question that the tests of an outcome answer.
ASKED: dict[verdicts.Outcome, str] = {
    "not forgotten": "Did it forget?",
    "utility lost": "What did it cost?",
    "distinguishable": "Can anyone tell?",
    "masked only": "Would it come back?",
}
HEADLINE = (
    *("mAP_forget", "R1_forget", "mAP_retain", "mAP_new", "dAP_forget"),  # of people
    *("FA", "RA", "TFA", "TA", "gap", "TV", "JSD_unseen", "probe_1", "proto_1", "relearn_auc"),
    *("P_forget", "P_retain", "ROUGE_forget", "MU", "choice", "AUC_min_k"),  # of texts, as the next
    *("dP_forget", "FQ", "relearn_P"),
    *("KL_forgotten", "KL_truth_forget", "KL_truth_retain"),  # of sequences, as the next
    *("KL_forget", "KL_retain", "KL_relearn"),
    *(WORK, TIME),
)
# The field's picture, the first of each that was measured: what a model is still good for, and how
# far it forgot. Where a class is forgotten whole every accuracy on it is 0, so its features tell.
UTILITY = ("TA", "MU", "P_retain", "KL_truth_retain")
FORGETTING = ("FQ", "FA", "P_forget", "KL_forgotten")
FORGETTING_A_CLASS = "probe_1"
# What says in one number how far a model is from the reference, and in what. The average gap of
# images has a membership attack in it, which flips class-wise.
GAPS = {
    "gap_acc": "accuracies (gap_acc)",
    "dAP_forget": "what it finds of forgotten people (dAP_forget)",
    "dP_forget": "the answers to be forgotten (dP_forget)",
    "KL_forget": "what follows forgotten sequences (KL_forget)",
}
METHODS = ("method", "with_retain")  # kinds: given the forget set alone, or the retain set too
WORDS: dict[verdicts.Outcome, str] = {
    "indistinguishable": "indistinguishable from retraining on these tests",
    "no evidence": "no evidence: what forgot nothing passes these tests too",
    "distinguishable": "distinguishable from retraining",
    "masked only": "masked only (features keep the {})",
    "utility lost": "utility lost",
    "not forgotten": "not forgotten",
}
FAILED: Literal["failed"] = "failed"  # the method left no model
UNCHANGED: Literal["unchanged"] = "unchanged"  # the method left the original's weights
NOT_JUDGED: Literal["not judged"] = "not judged"  # nothing was retrained
Outcome = verdicts.Outcome | Literal["failed", "unchanged", "not judged"]
RANKS: tuple[Outcome, ...] = (*reversed(verdicts.OUTCOMES), UNCHANGED, NOT_JUDGED, FAILED)


class Explained(NamedTuple):
    name: str
    unit: str
    aim: str
    meaning: str
    group: str

    @property
    def short(self) -> str:
        """The aim in a word."""
        return "reference" if self.aim == AIMS["reference"] else self.aim

    @property
    def header(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def apart(self) -> str:
        """Unit of a difference: percentages differ by points."""
        return "points" if self.unit == "%" else self.unit


class Finding(NamedTuple):
    """What is said of one model: its verdict, what decided it, and the tests that were made."""

    model: str
    kind: str
    outcome: Outcome
    words: str
    decided: list[str]
    results: list[verdicts.Result]

    def of(self, question: str) -> list[verdicts.Result]:
        """The tests that answer a question."""
        return [result for result in self.results if ASKED[result.test.outcome] == question]


class Compared(NamedTuple):
    """The table by model, and the models in it that a method is held against."""

    table: pd.DataFrame  # index: model
    nothing: str | None
    mask: str | None
    class_wise: bool
    limits: verdicts.Config
    sizes: Mapping[verdicts.Counted, int]
    failures: Mapping[str, str] = {}  # methods that left no model, and why
    unchanged: Set[str] = frozenset()  # methods that left the original; ``nothing`` is none of them

    @property
    def methods(self) -> list[str]:
        """Those that left a model."""
        all_of_them = [model for kind in METHODS for model in self.of_kind(kind)]
        return [model for model in all_of_them if model not in self.failures]

    @property
    def retrained(self) -> bool:
        """Whether there is a reference to be held against."""
        return bool(self.of_kind("reference"))

    @property
    def reference(self) -> str:
        return self.of_kind("reference")[0]

    def of_kind(self, kind: str) -> list[str]:
        return [str(model) for model in self.table.index[self.table["kind"] == kind]]

    def value(self, model: str, name: str) -> float:
        return float(self.table.loc[model, name])

    def values(self, model: str) -> dict[str, float]:
        """Everything that was measured of ``model``."""
        row = self.table.loc[model].drop("kind").dropna()
        return {str(name): float(value) for name, value in row.items()}

    def distance(self, model: str, name: str) -> float:
        """|model − reference|; of a metric that is a distance already, how far off its aim."""
        aim = {"low": 0.0, "high": 1.0}.get(about()[name].aim)
        return abs(
            self.value(model, name) - (self.value(self.reference, name) if aim is None else aim)
        )

    def variability(self, name: str) -> float | None:
        """Of retraining: the largest distance among models retrained with other seeds."""
        distances = [self.distance(model, name) for model in self.of_kind("retrained")]
        return max((d for d in distances if not pd.isna(d)), default=None)

    @property
    def trivial(self) -> tuple[str | None, str]:
        """What a method must beat: masking where a class is forgotten whole, else the original."""
        return (self.mask, "the logit mask") if self.class_wise else (self.nothing, "doing nothing")

    def verdict(self, model: str) -> verdicts.Verdict:
        """A model retrained with another seed is judged by the others.

        It takes no test over many networks: these are none of its own.
        """
        own = {
            name: value for name, value in self.values(model).items() if self.judges(model, name)
        }
        others = [
            {name: value for name, value in self.values(other).items() if self.judges(model, name)}
            for other in self.of_kind("retrained")
            if other != model
        ]
        return verdicts.judge(
            own,
            self.values(self.reference),
            others,
            self.limits,
            sizes=self.sizes,
            class_wise=self.class_wise,
            original=self.values(self.nothing) if self.nothing else None,
            mask=self.values(self.mask) if self.mask else None,
        )

    def judges(self, model: str, name: str) -> bool:
        """Whether the metric tells of the model.

        Many networks are none of the retrained models, and judge no method that did not get them.
        """
        many = name in about() and about()[name].group == "samples"
        row = self.table.loc[model]
        return not (many and (row["kind"] == "retrained" or pd.isna(row.get(name))))


def about() -> dict[str, metrics.About]:
    """Of every metric; read once, as a page asks thousands of times."""
    return _read(metrics.about)


@cache
def _read(source: Callable[[], dict[str, metrics.About]]) -> dict[str, metrics.About]:
    return source()


def explained(names: list[str]) -> list[Explained]:
    """How to read each column: of the metrics' own files, or of ``COSTS``."""
    known = about()
    return [
        Explained(
            name, known[name].unit, AIMS[known[name].aim], known[name].meaning, known[name].group
        )
        if name in known
        else Explained(name, COSTS[name][0], "high", COSTS[name][1], "cost")
        for name in names
    ]


def picture(measured: Collection[str]) -> tuple[str, str] | None:
    """The metrics of utility and of forgetting that are drawn against each other."""
    class_wise = "TFA" in measured
    forgetting = (FORGETTING_A_CLASS, *FORGETTING) if class_wise else FORGETTING
    found = [next((n for n in of if n in measured), None) for of in (UTILITY, forgetting)]
    return (found[0], found[1]) if found[0] and found[1] else None


def shown(name: str, value: float) -> str:
    """A value of the table as it is printed; "" where it is absent."""
    if pd.isna(value):
        return ""
    return f"{value:.{_digits(name)}f}"


def findings(compared: Compared) -> list[Finding]:
    """Methods first, by verdict and then by cost, then the models that they are held against.

    One retrained model alone has no other to be judged by, and is left out.
    """
    retrained = compared.of_kind("retrained")
    methods = [_finding(compared, model) for kind in METHODS for model in compared.of_kind(kind)]
    methods.sort(key=lambda f: (RANKS.index(f.outcome), work(compared, f.model)))
    others = compared.of_kind("baseline") + (retrained if len(retrained) > 1 else [])
    return methods + [_finding(compared, model) for model in others]


def work(compared: Compared, model: str) -> float:
    """Work of the method in % of that of retraining; 0 where nothing was updated."""
    saved = compared.table.loc[model].get(WORK, math.nan)
    return 0.0 if pd.isna(saved) else 100 / float(saved)


def headlines(compared: Compared, found: list[Finding]) -> list[str]:
    """The result in a few sentences; a defeat is told as plainly as a success."""
    if not compared.retrained:
        return [
            "Nothing was retrained (original.retrain in params.yaml): no verdict is given, and "
            "what is measured against a retrained model is absent.",
            "JSD_unseen stands in its place: how differently a model answers what it was to forget "
            "and what it never saw. It is an estimate, and 0 does not prove that a model forgot.",
        ]
    lines = warnings(compared)
    for words in dict.fromkeys(f.words for f in found if f.kind in METHODS):
        models = [f.model for f in found if f.words == words and f.kind in METHODS]
        lines.append(f"{_capital(words)}: {', '.join(models)}.")
    if not any(f.kind in METHODS for f in found):
        lines.append("No method was run.")
    failing = [f.model for f in found if f.kind == "retrained" and f.outcome not in verdicts.PASSED]
    if failing:
        lines.append(
            f"Retraining with another seed fails as well ({', '.join(failing)}): the margins are "
            "narrower than the noise here."
        )
    if not compared.of_kind("retrained"):
        lines.append("No retraining variability: params.yaml retrains with one seed only.")
    trivial, trivially = compared.trivial
    gap = next((name for name in GAPS if trivial and _known(compared, trivial, name)), None)
    varies = compared.variability(gap) if gap else None
    limit = compared.value(trivial, gap) if trivial and gap else 0.0
    # Within what differs by chance no method is nearer.
    if gap and compared.methods and limit > (varies or 0.0):
        better = [m for m in compared.methods if _order(compared.value(m, gap), limit, gap) < 0]
        noise = "" if varies is None else f" (retrained with other seeds {shown(gap, varies)})"
        unit = f" {about()[gap].unit}".rstrip().replace("%", "points")
        lines.append(
            f"Nearer to the reference in {GAPS[gap]} than {trivially}, which is off by "
            f"{shown(gap, limit)}{unit}{noise}: {', '.join(better) or 'no method'}."
        )
    return lines


def warnings(compared: Compared) -> list[str]:
    """What takes the weight from every verdict, and is to be read before them."""
    lines = []
    if powerless(compared):
        lines.append(
            "Doing nothing is not told from forgetting: the tests have no power to show "
            "forgetting here, and no verdict on this page is evidence of it."
        )
    if mask_passes(compared):
        lines.append(
            "A mask passes every test: they do not see what the network keeps here, and a model "
            "that passes may have forgotten no more than a mask does."
        )
    return lines


def powerless(compared: Compared) -> bool:
    """Whether the original model passes as one that forgot."""
    if compared.nothing is None:
        return False
    failed = {result.test.outcome for result in compared.verdict(compared.nothing).failed}
    return "not forgotten" not in failed


def blind(compared: Compared) -> list[str]:
    """Tests of forgetting that the original model passes: they cannot show that another forgot."""
    if compared.nothing is None:
        return []
    asked: tuple[verdicts.Outcome, ...] = ("not forgotten", "masked only")
    results = compared.verdict(compared.nothing).results
    return [r.test.metric for r in results if r.test.outcome in asked and not r.failed]


def mask_passes(compared: Compared) -> bool:
    """Whether hiding a class behind its logit, or texts behind tokens, passes as forgetting."""
    if compared.mask is None or powerless(compared):
        return False
    return compared.verdict(compared.mask).outcome in verdicts.PASSED


def reasons(found: verdicts.Verdict, of: Collection[str], *, class_wise: bool) -> list[str]:
    """What decided: how far beyond the reference the model lies in each test that it failed.

    Of a model that passed all, also what no test could look at. of: metrics that there are for such
    a model.
    """
    if not found.decisive:
        asked = (test for test in verdicts.CRITERIA if test.class_wise in (None, class_wise))
        known = {test.metric for test in asked if test.metric in of}
        unknown = sorted(known - {result.test.metric for result in found.results})
        passed = f"all {len(found.results)} tests passed"
        return [passed, *([f"not measured: {', '.join(unknown)}"] if unknown else [])]
    sign = {"above": "+", "below": "−", "apart": ""}
    lines = [
        f"{result.test.metric} {sign[result.test.side]}{shown(result.test.metric, result.excess)}, "
        f"allowed {shown(result.test.metric, result.allowed)}"
        for result in found.decisive
    ]
    also = [o for o in verdicts.OUTCOMES if o in {r.test.outcome for r in found.failed}]
    if also[1:]:
        lines.append(f"also: {', '.join(also[1:])}")
    return lines


def _finding(compared: Compared, model: str) -> Finding:
    kind = str(compared.table.loc[model, "kind"])
    if model in compared.failures:
        why = compared.failures[model]
        return Finding(model, kind, FAILED, "failed: it left no model", [why], [])
    results = compared.verdict(model).results if compared.retrained else []
    if model in compared.unchanged:
        why = "the weights are the original's: the log of the method says where it ended"
        return Finding(model, kind, UNCHANGED, "unchanged: nothing was unlearned", [why], results)
    if not compared.retrained:
        return Finding(model, kind, NOT_JUDGED, NOT_JUDGED, ["nothing was retrained"], [])
    found = compared.verdict(model)
    words = _words(compared, WORDS[found.outcome])
    decided = reasons(found, compared.table.columns, class_wise=compared.class_wise) + _failures(
        compared, model, found
    )
    if found.outcome in verdicts.PASSED and (names := blind(compared)):
        decided.append(f"without power, as the original passes them: {', '.join(names)}")
    return Finding(model, kind, found.outcome, words, decided, results)


def _failures(compared: Compared, model: str, found: verdicts.Verdict) -> list[str]:
    """Networks that the method could not unlearn, where many networks decided."""
    if "U_LiRA" not in {result.test.metric for result in found.decisive}:
        return []
    shares = {n: compared.values(model).get(n, 0.0) for n in ("diverged", "unfinished")}
    return [f"{share:.0f} % of the networks {name}" for name, share in shares.items() if share]


def _known(compared: Compared, model: str, name: str) -> bool:
    return name in compared.table and not pd.isna(compared.table.loc[model, name])


def _words(compared: Compared, words: str) -> str:
    return words.format("class" if compared.class_wise else "samples")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _order(value: float, limit: float, name: str) -> int:
    """−1, 0 or 1; equal when they are printed alike."""
    value, limit = round(value, _digits(name)), round(limit, _digits(name))
    return (value > limit) - (value < limit)


def _digits(name: str) -> int:
    digits = {"%": 2, "points": 2, "×": 1, "steps": 0, "samples": 0}
    return digits.get(explained([name])[0].unit, 4)
