"""The trials of a search: what is tried next and what came out, in an Optuna study on disk."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from flows.searching.space import combinations
from flows.searching.tuning import Judge, Outcome

ENOUGH = 10  # trials without failure, from which importances are told


class Trial(NamedTuple):
    number: int
    candidate: dict[str, Any]
    outcome: Outcome

    def row(self) -> dict[str, Any]:
        """For ``tasks.pages.search_page`` and MLflow."""
        known = {"number": self.number, "candidate": self.candidate, "gap": self.outcome.gap}
        return known | {"gaps": self.outcome.gaps, "failure": self.outcome.failure}


class Study:
    """One search on disk. A trial counts once it is told; one that was not is asked for again."""

    def __init__(
        self, file: Path, key: str, distributions: Mapping[str, BaseDistribution], seed: int
    ):
        """key: of what is searched, and in what; another one is another study in the file."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.distributions, self.seed = dict(distributions), seed
        self.study = optuna.create_study(
            storage=f"sqlite:///{file}", study_name=key, load_if_exists=True
        )
        for left in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.enqueue_trial(left.params)
            self.study.tell(left.number, state=TrialState.FAIL)

    def run(self, judge: Judge, trials: int, at_once: int, done: Callable[[], None]) -> None:
        """Ask and tell until ``trials`` are told, or all that the space has.

        at_once: candidates that are judged together. done: called after each batch. A candidate
        that was judged before keeps what came out.
        """
        everything = combinations(self.distributions, trials)
        for candidate in everything:
            self.study.enqueue_trial(candidate, skip_if_exists=True)
        while (left := self._left(trials, len(everything))) > 0:
            asked = self._ask(min(at_once, left))
            known = {_name(trial.candidate): trial.outcome for trial in self.told()}
            new = {_name(trial.params): trial.params for trial in asked}
            new = {name: new[name] for name in new if name not in known}
            known |= dict(zip(new, judge(list(new.values())), strict=True)) if new else {}
            for trial in asked:
                self._tell(trial, known[_name(trial.params)])
            done()

    def begin_with(self, candidate: dict[str, Any]) -> None:
        """Make a candidate of the space the first trial, where nothing was tried yet."""
        if not self.told():
            self.study.enqueue_trial(candidate, skip_if_exists=True)

    def outcome(self, candidate: dict[str, Any], judge: Judge) -> Outcome:
        """Of any candidate; one that is no trial is judged now, apart from them, and kept."""
        for trial in self.told():
            if trial.candidate == candidate:
                return trial.outcome
        if _name(candidate) not in self.study.user_attrs:
            self.study.set_user_attr(_name(candidate), judge([candidate])[0].found)
        return Outcome(self.study.user_attrs[_name(candidate)])

    def told(self) -> list[Trial]:
        """What is known, in order of number; without trials that a stop cut off."""
        return [
            Trial(trial.number, trial.params, outcome)
            for trial in self.study.get_trials(deepcopy=False)
            if (outcome := Outcome(trial.user_attrs.get("found", {}))).failure
            or trial.state == TrialState.COMPLETE
        ]

    def importances(self) -> dict[str, float]:
        """Share of the gap's variance that each parameter explains (fANOVA), the largest first.

        {} where there is one parameter, too few trials, or no difference.
        """
        gaps = [trial.outcome.gap for trial in self.told() if not trial.outcome.failure]
        if len(self.distributions) < 2 or len(gaps) < ENOUGH or len({*gaps}) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {path: float(share) for path, share in found.items()}

    def _left(self, trials: int, everything: int) -> int:
        told = self.told()
        if everything:
            return everything - len({_name(trial.candidate) for trial in told})
        return trials - len(told)

    def _ask(self, count: int) -> list[optuna.Trial]:
        """The next trials.

        The sampler is seeded anew, by how much is known: a search that goes on would draw again
        what it drew at its start.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=3 + 2 * len(self.distributions),
                constant_liar=True,  # candidates of a batch keep away from each other
                seed=self.seed + 1000 * len(self.told()),
            )
        return [self.study.ask(self.distributions) for _ in range(count)]

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """A candidate with a failure has failed, and keeps its reason."""
        trial.set_user_attr("found", outcome.found)
        if outcome.failure:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, outcome.gap)


def _name(candidate: dict[str, Any]) -> str:
    return json.dumps(candidate, sort_keys=True)
