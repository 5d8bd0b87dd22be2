"""A folder with requests, and work for them that takes no time: what tests of erasure share."""

from pathlib import Path
from typing import Any

import pandas as pd

from flows.erasing import life
from flows.erasing.letters import INBOX
from flows.erasing.office import open_office
from flows.erasing.work import Options, Unlearned
from tasks.erasing import ErasureError, certificate, ledger
from tasks.erasing.matching import Asked, Match
from tasks.erasing.residue import Place
from tasks.pages import findings
from tasks.tracking.store import TrackingError

STEPS = ("received", "matched", "unlearned", "judged", "accepted", "deployed", "purged")


class Pretended:
    """Work that takes no time. outcomes: verdicts by method. ends: where the process is killed."""

    def __init__(self, root: Path, **outcomes: str):
        self.root, self.outcomes, self.ends, self.away = root, outcomes, "", False
        self.done: list[str] = []
        self.served: dict[int, Path] = {}
        self.forgot: list[tuple[str, ...]] = []
        self.samples = pd.DataFrame(
            {"id": ["a", "b"], "sha256": ["1" * 64, "2" * 64], "set": ["train", "test"], "of": ""}
        )
        self.reason, self.drift, self.idle = "", 0.01, "not forgotten"
        self.words = findings.WORDS["indistinguishable"]
        self.stays, self.left = [Place("data", "them", "it stays")], list[Place]()

    def _did(self, what: str) -> None:
        self.done.append(what)
        if what == self.ends:
            self.ends = ""
            raise KeyboardInterrupt

    def match(self, asked: Asked, *, twins: bool) -> Match:
        if "nobody" in asked.names:
            raise ErasureError("unknown subject 'nobody'")
        samples = self.samples.iloc[:0] if asked.names in self.forgot else self.samples
        found = Match(samples, samples.iloc[:0], 0, self.reason, {"before": "x", "after": "y"})
        self._did("match")
        return found

    def near(self, *_: Any) -> list[dict[str, Any]]:
        return [{"id": "c", "of": "a", "distance": 0.2}]

    def ids(self, asked: Asked) -> list[str]:
        return ["a", "b", "c"]

    def skipped(self, method: str, asked: Asked, retain: bool) -> str:
        return "it may not" if method == "salun" and not retain else ""

    def unlearn(self, number: int, asked: Asked, match: Match, method: str) -> Unlearned:
        model = self.root / f"{method}.safetensors"
        model.write_text(f"{method} {number}")
        self._did("unlearn")
        return Unlearned(
            model=model,
            access="forget",
            parameters={"seed": 0},
            before="0" * 64,
            file=".cells/x/runs/unlearn/imu_deep/model.safetensors",
            outcome=self.outcomes.get(method, "retrained"),
            words=self.words,
            decided=[],
            idle=self.idle,
            metrics={"TV": self.drift},
            thresholds={"distance": 0.04},
            evidence={},
        )

    def promote(self, number: int, asked: Asked, model: Path, tags: dict[str, str]) -> str:
        if self.away:
            raise TrackingError("MLflow is away")
        self.served = {number: model}
        self.forgot.append(asked.names)
        self._did("promote")
        return str(number)

    def scan(self, number: int, asked: Asked) -> list[Place]:
        self._did("scan")
        return [*self.stays, Place("runs", "their images")]

    def purge(self, number: int, asked: Asked) -> tuple[list[Place], list[Place]]:
        self._did("purge")
        return [*self.stays, Place("runs", "their images")], [*self.stays, *self.left]


def laid_out(tmp_path: Path) -> Path:
    """A folder with what a request needs."""
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "forgotten.csv").write_text("id\n")
    (tmp_path / "params.yaml").write_text(
        "split: {dataset: digits, forgotten_before: requests/forgotten.csv}\n"
        "verdict: {distance: 0.04}\n"
    )
    return tmp_path


def served(root: Path, work: Pretended, asked: Asked, **options: Any) -> int:
    with open_office(root) as at:
        number = life.receive(at, asked, Options(**options), work)
        life.serve(at, number, work, lambda _: None)
    return number


def steps(root: Path, number: int = 1) -> list[str]:
    return [r["step"] for r in ledger.records(root / "erasure") if r["request"] == number]


def letter(root: Path, content: str, name: str = "a.yaml") -> Path:
    (root / INBOX).mkdir(exist_ok=True)
    (root / INBOX / name).write_text(content)
    return root / INBOX / name


def checked(path: Path, key: Any, folder: Path | None = None) -> list[str]:
    said = certificate.opened(path, key)["predicate"]
    return certificate.placed(path, said, key, folder or path.parents[2])


ADA = Asked(subjects=("Ada Merton",))
