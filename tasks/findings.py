"""What the table of results says, in plain sentences made from its numbers."""

from typing import NamedTuple

import pandas as pd

from imu import metrics

WORK = "RTE_work"  # the one column that ``tasks.evaluate`` adds to the metrics
TIME = "RTE_time"  # in seconds: differs from run to run, so it is shown, but not in the report
AIMS = {"reference": "the reference's value", "low": "0"}
FLOOR = ("nearer", "equal", "farther")  # to the reference than the floor is
TRIVIAL = ("better", "no better, a tie", "worse")
# Unit and meaning of the columns that are no metrics.
COSTS = {
    WORK: ("×", "work of retraining / work of the method, influence included, counted in FLOPs"),
    TIME: ("×", "seconds of retraining / seconds of the method, influence included"),
}


class Explained(NamedTuple):
    name: str
    unit: str
    aim: str
    meaning: str

    @property
    def short(self) -> str:
        """The aim in a word."""
        return "reference" if self.aim == AIMS["reference"] else self.aim

    @property
    def header(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


class Verdict(NamedTuple):
    """What one method did, in short lines.

    forgot: minus the reference, points. cost: minus the original, points; work in % of retraining.
    floor, trivial: distances to the reference, held against those of the floor and of the baseline.
    """

    method: str
    forgot: list[str]
    cost: list[str]
    floor: list[str]
    trivial: list[str]


METHODS = ("method", "with_retain")  # kinds: given the forget set alone, or the retain set too


class Compared(NamedTuple):
    """The table by model, and the models in it that a method is held against."""

    table: pd.DataFrame  # index: model
    nothing: str | None
    mask: str | None
    class_wise: bool

    @property
    def methods(self) -> list[str]:
        return [model for kind in METHODS for model in self.of_kind(kind)]

    def of_kind(self, kind: str) -> list[str]:
        return [str(model) for model in self.table.index[self.table["kind"] == kind]]

    def value(self, model: str, name: str) -> float:
        return float(self.table.loc[model, name])

    def distance(self, model: str, name: str) -> float:
        """|model − reference|, or the value itself where that is a distance already."""
        if metrics.about()[name].aim == "low":
            return self.value(model, name)
        return abs(self.value(model, name) - self.value(self.of_kind("reference")[0], name))

    def floor(self, name: str) -> float | None:
        """The largest distance among the models of the noise floor."""
        return max((self.distance(model, name) for model in self.of_kind("floor")), default=None)

    @property
    def original(self) -> str:
        """The model that cost is counted from: the original, else the reference."""
        return self.nothing or self.of_kind("reference")[0]

    @property
    def trivial(self) -> tuple[str | None, str]:
        """What a method must beat: masking where a class is forgotten whole, else the original."""
        return (self.mask, "the logit mask") if self.class_wise else (self.nothing, "doing nothing")


def explained(names: list[str]) -> list[Explained]:
    """How to read each column: of the metrics' own files, or of ``COSTS``."""
    about = metrics.about()
    return [
        Explained(name, about[name].unit, AIMS[about[name].aim], about[name].meaning)
        if name in about
        else Explained(name, COSTS[name][0], "high", COSTS[name][1])
        for name in names
    ]


def shown(name: str, value: float) -> str:
    """A value of the table as it is printed; "" where it is absent."""
    if pd.isna(value):
        return ""
    return f"{value:.{_digits(name)}f}"


def headlines(compared: Compared) -> list[str]:
    """The result in a few sentences; a defeat is told as plainly as a success."""
    methods, floor = compared.methods, compared.floor("gap")
    trivial, trivially = compared.trivial
    gaps = [f"{method} {_shown(compared, method, 'gap')}" for method in methods]
    known = [] if floor is None else [f"floor {shown('gap', floor)}"]
    for model, name in ((compared.nothing, "nothing"), (compared.mask, "logit mask")):
        known += [f"{name} {_shown(compared, model, 'gap')}"] if model else []
    lines = [f"Average gap to the reference, in points: {', '.join(gaps) or 'no method'}."]
    lines += [f"To compare: {'; '.join(known)}."] if known else []
    if floor is None:
        lines.append("No noise floor: params.yaml retrains with one seed only.")
    else:
        first = "Nearer to the reference than the floor, by average gap"
        lines.append(_sorted(compared, floor, (first, *FLOOR[1:])))
    if trivial:
        first = f"Better than {trivially}, by average gap"
        lines.append(_sorted(compared, compared.value(trivial, "gap"), (first, *TRIVIAL[1:])))
    return lines


def verdicts(compared: Compared) -> list[Verdict]:
    return [_verdict(compared, method) for method in compared.methods]


def _verdict(compared: Compared, method: str) -> Verdict:
    low = [name for name in _present(compared) if metrics.about()[name].aim == "low"]
    floor, trivial = [], []
    for name in low:
        value = compared.value(method, name)
        if (limit := compared.floor(name)) is not None:
            floor.append(_against(name, value, limit, FLOOR))
        if compared.trivial[0]:
            limit = compared.value(compared.trivial[0], name)
            trivial.append(_against(name, value, limit, TRIVIAL))
    reference = compared.of_kind("reference")[0]
    forgot = _changes(compared, method, reference, ("FA", "TFA", "MIA"))
    cost = _changes(compared, method, compared.original, ("RA", "TA"))
    work = compared.value(method, WORK)
    cost.append("work 0 %" if pd.isna(work) else f"work {100 / work:.2f} %")
    return Verdict(method, forgot, cost, floor, trivial)


def _changes(compared: Compared, model: str, to: str, names: tuple[str, ...]) -> list[str]:
    changes = {n: compared.value(model, n) - compared.value(to, n) for n in names}
    return [
        f"{n} {change:+.2f}".replace("-", "−").replace("+0.00", "±0.00").replace("−0.00", "±0.00")
        for n, change in changes.items()
        if not pd.isna(change)
    ]


def _against(name: str, value: float, limit: float, words: tuple[str, str, str]) -> str:
    order = _order(value, limit, name)
    sign = "<=>"[order + 1]
    return f"{name} {shown(name, value)} {sign} {shown(name, limit)}: {words[order + 1]}"


def _order(value: float, limit: float, name: str) -> int:
    """−1, 0 or 1; equal when they are printed alike."""
    value, limit = round(value, _digits(name)), round(limit, _digits(name))
    return (value > limit) - (value < limit)


def _sorted(compared: Compared, limit: float, words: tuple[str, str, str]) -> str:
    """The methods by the order of their gap to ``limit``."""
    groups = []
    for order, word in zip((-1, 0, 1), words, strict=True):
        methods = compared.methods
        inside = [m for m in methods if _order(compared.value(m, "gap"), limit, "gap") == order]
        if inside or order < 0:
            groups.append(f"{word[0].upper()}{word[1:]}: {', '.join(inside) or 'none'}.")
    return " ".join(groups)


def _present(compared: Compared) -> list[str]:
    return [n for n in metrics.about() if compared.table[n].notna().all()]


def _shown(compared: Compared, model: str, name: str) -> str:
    return shown(name, compared.value(model, name))


def _digits(name: str) -> int:
    return {"%": 2, "points": 2, "×": 1}.get(explained([name])[0].unit, 4)
