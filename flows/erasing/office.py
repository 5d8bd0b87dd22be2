"""The folder ``erasure/`` of a clone: keys, ledger, requests, and what is in production."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from filelock import FileLock

from tasks.erasing import ErasureError, keys
from tasks.erasing.certificate import digest
from tasks.erasing.ledger import FILE, HEAD, Ledger, Records, canonical
from tasks.erasing.matching import Asked, Match
from tasks.erasing.residue import CELLS
from tasks.files import artifacts, forgotten

FOLDER = "erasure"
PERSONAL = ("asked.json", "matched.json")  # files of a request that name people
LOST = "bring it back from where you keep a copy, or move erasure/ to an archive and begin anew"
ENDS = ("certified", "refused")
RETRAIN = "retrain"  # the method that always works: the reference itself


def listed(number: int) -> str:
    """Where a cell has the ids of a request; nowhere else they lie in plain text."""
    return f"requests/erasure-{number:04d}.csv"


class Production(NamedTuple):
    """The model that is served: since which request, its file, and its version in MLflow."""

    request: int
    model: Path
    sha256: str
    version: str


class Books:
    """What can be read with the public key alone; nothing is written."""

    ledger: Records

    def __init__(self, root: Path, key: Ed25519PublicKey | None = None):
        """key: else that of the clone. Raises ErasureError where no ledger is, or is not whole."""
        self.root, self.folder = root, root / FOLDER
        key = key or keys.read_public(self.folder / "keys" / keys.PUBLIC)
        self.ledger = Records(self.folder, key)

    def place(self, number: int, name: str = "") -> Path:
        """A file of a request, or its folder."""
        return self.folder / "requests" / f"{number:04d}" / name

    def step(self, number: int) -> str:
        """The last one that a request has done."""
        return str(self.ledger.of(number)[-1]["step"])

    def require(self, number: int) -> None:
        """Raises ErasureError where there is no such request."""
        if number not in (known := self.numbers()):
            choices = ", ".join(map(str, known)) or "none yet"
            raise ErasureError(f"there is no request {number}; there are: {choices}")

    def open_requests(self) -> list[int]:
        """Those that are not at their end, the oldest first."""
        return [number for number in self.numbers() if self.step(number) not in ENDS]

    def numbers(self, dataset: str = "") -> list[int]:
        """Requests about a data set, or all, the oldest first."""
        found = self.ledger.all("received")
        return sorted({r["request"] for r in found if dataset in ("", r["dataset"])})

    def production(self, dataset: str) -> Production | None:
        """The model that is served; None where no request was served yet.

        Raises ErasureError where its file is missing, or not the one that was deployed.
        """
        of = self.numbers(dataset)
        served = [r for r in self.ledger.all("deployed") if r["request"] in of and r["model"]]
        if not served:
            return None
        last = served[-1]
        path = self.model(last["request"])
        if not path.is_file() or digest(path) != last["model"]:
            raise ErasureError(
                f"{path} is missing, or not the model that request {last['request']} deployed "
                f"(SHA-256 {last['model']}): bring it back from MLflow or a backup"
            )
        return Production(last["request"], path, last["model"], last["version"])

    def drifted(self, dataset: str) -> str:
        """How far the served model lies from retraining, and since how many requests it does."""
        since, last = 0, ""
        for number in self.numbers(dataset):
            if self.ledger.of(number, "deployed") and (judged := self.ledger.of(number, "judged")):
                retrained = self.ledger.of(number, "accepted")[-1]["method"] == RETRAIN
                since, last = (0, "") if retrained else (since + 1, f"{judged[-1]['drift']:.3g}")
        if not since:
            return "retrained by the last request"
        return f"{since} requests since it was trained, {last} from retraining"

    def answer(self, number: int) -> str:
        """What became of a request at its end; it names nobody."""
        if self.step(number) == "refused":
            return f"refused; see {self.place(number, 'refused.json').relative_to(self.root)}"
        return f"certified, {self.place(number, 'certificate.html')}"

    def refusal(self, number: int) -> str:
        """Why a request was refused; it may name people."""
        found = artifacts.read_json(self.place(number, "refused.json"))
        return ": ".join(filter(None, [found["why"], found["words"]]))

    def model(self, number: int) -> Path:
        return self.folder / "models" / f"{number:04d}.safetensors"


class Office(Books):
    """What one process at a time works in; others wait (``open_office``)."""

    ledger: Ledger

    def __init__(self, root: Path):
        """Raises ErasureError where keys and ledger are not whole or do not belong together."""
        self.root, self.folder = root, root / FOLDER
        own, file = self.folder / "keys", self.folder / FILE
        is_new = not file.exists() and not own.exists()
        unused = own / keys.UNUSED
        left = [self.folder / name for name in (HEAD, "requests") if (self.folder / name).exists()]
        if not file.exists() and (left or (own.exists() and not unused.exists())):
            raise ErasureError(f"the ledger {file} is missing, of {(left or [own])[0]}: {LOST}")
        self.keys = (keys.create if is_new else keys.read)(own)
        self.ledger = Ledger(self.folder, self.keys)
        unused.unlink(missing_ok=True)

    def pseudonym(self, dataset: str, asked: Asked) -> str:
        """Of the request as a whole: it is recognised when it comes again."""
        whole = [dataset, asked.kind, asked.names, asked.settings]
        return self.keys.pseudonym("request", canonical(whole).decode())

    def write(self, number: int, name: str, content: Any) -> None:
        """A file for the owner alone."""
        self.place(number).mkdir(parents=True, exist_ok=True, mode=0o700)
        artifacts.write_json(self.place(number, name), content, mode=0o600)

    def asked(self, number: int) -> Asked:
        found = artifacts.read_json(self.place(number, "asked.json"))
        return Asked(
            subjects=tuple(found["subjects"]), ids=tuple(found["ids"]), settings=found["settings"]
        )

    def match(self, number: int) -> Match:
        """Raises ErasureError where it is not what was matched."""
        found = artifacts.read_json(self.place(number, "matched.json"))
        for matched in self.ledger.of(number, "matched")[-1:]:
            if self.pseudonym_of(found) != matched["file"]:
                path = self.place(number, "matched.json")
                raise ErasureError(f"{path} is not what the ledger says was matched")
        columns = ["id", "sha256", "set", "of"]
        return Match(
            pd.DataFrame(found["samples"], columns=columns),
            pd.DataFrame(found["kept"], columns=columns),
            found["before"],
            found["reason"],
            found["digests"],
        )

    def pseudonym_of(self, content: Any) -> str:
        """Of what a file of a request holds."""
        return self.keys.pseudonym("file", canonical(content).decode())

    def keep_match(self, number: int, match: Match) -> str:
        """Returns its pseudonym."""
        tables = {name: getattr(match, name).to_dict("records") for name in ("samples", "kept")}
        self.write(number, "matched.json", match._asdict() | tables)
        return self.pseudonym_of(match._asdict() | tables)

    def keep_model(self, number: int, model: Path) -> str:
        """Copy the accepted model; returns its SHA-256."""
        target = self.model(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.replacing(target) as temporary:
            shutil.copyfile(model, temporary)
        return digest(target)

    def drop_runs(self, number: int) -> None:
        """Remove the workspaces in which a request was tried: its samples are listed there."""
        for file in self.root.glob(f"{CELLS}/*/{listed(number)}"):
            if not (cell := file.parents[1]).is_symlink():  # as the purge, which follows none
                shutil.rmtree(cell)

    def leave_out(self, path: Path, number: int, match: Match) -> None:
        """Enter the samples of a request into the table of what no set may hold any more.

        Rows of other samples stay: a request of an earlier ledger may have had the same number.
        """
        table = artifacts.read_given(path, **dict.fromkeys(forgotten.COLUMNS, "str"))
        lacking = [name for name in forgotten.COLUMNS if name not in table]
        table = table.assign(**dict.fromkeys(lacking, ""))
        kept = set(match.kept["sha256"])
        rows = [
            ("", forgotten.mark(i, s), "" if s in kept else s, str(number))
            for i, s in match.samples[["id", "sha256"]].to_numpy()
        ]
        new = pd.DataFrame(rows, columns=list(forgotten.COLUMNS))
        new = new.reindex(columns=list(table.columns), fill_value="")
        others = table[~table["mark"].isin(new["mark"])]
        artifacts.write_table(path, pd.concat([others, new], ignore_index=True))


@contextmanager
def open_office(root: Path) -> Iterator[Office]:
    """The office, once nobody else works in it."""
    (root / FOLDER).mkdir(exist_ok=True, mode=0o700)
    with FileLock(root / FOLDER / "lock"):
        yield Office(root)
