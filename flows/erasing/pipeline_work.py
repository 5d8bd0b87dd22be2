"""What a request needs done, done by the pipeline in cells, by MLflow and by the scan."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.erasing.office import RETRAIN, Office, listed
from flows.erasing.work import Options, Unlearned
from flows.running.cells import Cell, prepare
from flows.running.children import ChildError, Children
from flows.running.entries import entry_of
from flows.running.holding import only_run
from flows.running.requests import Method
from flows.running.workspaces import bring_data, run_tags, run_workspace
from imu import verdicts
from tasks import report
from tasks.data import samples_of
from tasks.erasing import ErasureError, matching, residue
from tasks.erasing.certificate import digest
from tasks.erasing.matching import Asked, Match
from tasks.erasing.residue import Place
from tasks.files import artifacts, params
from tasks.files.workspace import OWN, Workspace, baselines
from tasks.tracking import registry
from tasks.tracking.store import Store, address
from tasks.tracking.tracker import Context

PARENT = f"{OWN}/production.safetensors"  # in a cell: the model that is to forget
REFERENCE = "reference"
RETRAINED = "retrained without the samples"


class PipelineWork:
    """In the clone of ``office``."""

    def __init__(self, office: Office, jobs: int, say: Callable[[str], None]):
        self.office, self.root, self.jobs, self.say = office, office.root, jobs, say

    def match(self, asked: Asked, *, twins: bool) -> Match:
        return matching.match(Workspace(self._with_data(asked)), asked, twins=twins)

    def skipped(self, method: str, asked: Asked, retain: bool) -> str:
        if method != RETRAIN and not retain:
            ((_, entry),) = self._entry(asked, method).items()
            if entry["data_access"] != "forget":
                return "it is given the retain set, which may not be used for this request"
        return ""

    def near(
        self, number: int, asked: Asked, match: Match, options: Options
    ) -> list[dict[str, Any]] | str:
        if not match.counts["train"]:
            return "no model was trained on any of the samples"
        first = next(m for m in options.order if not self.skipped(m, asked, options.retain))
        with self._ran(number, asked, match, first, part="train") as workspace:
            file = (workspace.root / listed(number)).with_suffix(".json")
            ids, model = match.samples["id"].tolist(), workspace.model("train")
            children = Children(workspace.root)
            try:
                given = {"ids": ids, "model": str(model.relative_to(workspace.root))}
                artifacts.write_json(file, given | {"nearer": options.near}, mode=0o600)
                children.run(["near", str(file)], self.say)
                found = artifacts.read_json(file)
            except ChildError:  # what is only listed holds up no erasure
                if children.closed:
                    raise
                return "the search for them failed; the log of the run says why"
            finally:
                file.unlink(missing_ok=True)
        return str(found["why_not"]) or list(found["near"])

    def unlearn(self, number: int, asked: Asked, match: Match, method: str) -> Unlearned:
        former = self.office.production(self._dataset(asked))
        part = "train" if match.reason else ""
        with self._ran(number, asked, match, method, part=part) as workspace:
            if match.reason:
                return self._trained(workspace, former.sha256 if former else "")
            before = former.sha256 if former else digest(workspace.model("train"))
            return self._found(workspace, method, before)

    @contextmanager
    def _ran(
        self, number: int, asked: Asked, match: Match, method: str, *, part: str
    ) -> Iterator[Workspace]:
        """The workspace of a request, in which a part of the pipeline has run."""
        anew = bool(match.reason)
        changes = self._anew(number, asked) if anew else self._changes(number, asked, method)
        cell = Cell(name=f"request {number}", changes=changes)
        folder = cell.folder(self.root)
        former = self.office.production(self._dataset(asked))
        with only_run(folder):
            prepare(self.root, cell)
            if anew:
                file = params.section(folder, "split.forgotten_before")
                self.office.leave_out(folder / file, number, match)
            else:
                ids = match.samples["id"][match.samples["of"] == ""]  # the split finds copies
                artifacts.write_table(folder / listed(number), ids.to_frame())
            if former:
                artifacts.write_bytes(folder / PARENT, former.model.read_bytes())
            tags = {**run_tags(), "imu.request": str(number)}
            context = Context(store=address(self.root), tags=tags)
            run_workspace(self.root, folder, cell, context, jobs=self.jobs, part=part)
            yield Workspace(folder)

    def ids(self, asked: Asked) -> list[str]:
        return samples_of(Workspace(self._with_data(asked)).dataset())["id"].tolist()

    def promote(self, number: int, asked: Asked, model: Path, tags: dict[str, str]) -> str:
        store = self.store(asked)
        return registry.promote(store, number, model, tags)

    def scan(self, number: int, asked: Asked) -> list[Place]:
        found, former = self._found_of(number, asked)
        return [*self._places(former), *found.places]

    def purge(self, number: int, asked: Asked) -> tuple[list[Place], list[Place]]:
        found, former = self._found_of(number, asked)
        plan = self.office.place(number, "residue.json")
        found = residue.resume(plan, found)
        with ExitStack() as held:  # nothing is taken from under a run
            for folder in (self.root, *(path for path in found.files if path.is_dir())):
                held.enter_context(only_run(folder))
            left = residue.remove(self.root, self.store(asked), found, plan)
        for path in former:
            path.unlink()
        known = {place.where for place in left}
        again = [place for place in self.scan(number, asked) if place.where not in known]
        return [*self._places(former), *found.places], [*again, *left]

    def _found_of(self, number: int, asked: Asked) -> tuple[residue.Residue, list[Path]]:
        """What lies elsewhere, and former models."""
        file = self._parameters(asked)["split"]["forgotten_before"]
        marks = residue.marks_of(self.root, file, number)
        served = self.office.production(self._dataset(asked))
        models = [served.model] if served else []
        found = residue.scan(self.root, self.store(asked), marks, models, number)
        numbers = self.office.numbers(self._dataset(asked))
        deployed = [n for n in numbers if self.office.ledger.of(n, "deployed")]
        every = map(self.office.model, deployed)
        return found, [path for path in every if path.exists() and path not in models]

    def _places(self, former: list[Path]) -> list[Place]:
        return [Place(str(path.relative_to(self.root)), "a former model") for path in former]

    def rerun(self, number: int) -> str:
        """SHA-256 of the model that the last method of a request makes when it runs again.

        It runs in a copy of its workspace. Raises ErasureError where that was purged.
        """
        made = Path(self.office.ledger.of(number, "unlearned")[-1]["file"])  # .cells/X/runs/…
        folder, producer = self.root.joinpath(*made.parts[:2]), "/".join(made.parts[3:-1])
        if not Workspace(folder).model(producer).is_file():
            raise ErasureError(
                f"request {number} cannot be run again: what it was made from was purged"
            )
        with TemporaryDirectory(dir=folder.parent) as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(Workspace(Path(copy)).model(producer).parent)
            children = Children(Path(copy))
            try:
                children.run(producer.split("/"), self.say)
            finally:
                children.end_all()
            return digest(Workspace(Path(copy)).model(producer))

    def store(self, asked: Asked) -> Store:
        return Store(Workspace(self._folder(asked)), address(self.root))

    def _found(self, workspace: Workspace, method: str, before: str) -> Unlearned:
        producer = f"retrain/{REFERENCE}" if method == RETRAIN else f"unlearn/{method}"
        out = workspace.evaluation(producer) / "metrics.json"
        found = report.read_verdicts(workspace)
        said = found.get(method, {})
        metrics: dict[str, Any] = artifacts.read_json(out)
        entry = {} if method == RETRAIN else params.section(workspace.root, f"unlearn.{method}")
        files = (out, report.verdicts(workspace), workspace.root / params.FILE)
        return Unlearned(
            model=workspace.model(producer),
            access="retain" if method == RETRAIN else entry["data_access"],
            parameters={"seed": workspace.seed, **entry},
            before=before,
            file=str(workspace.model(producer).relative_to(self.root)),
            outcome=said.get("outcome", RETRAINED),
            words=said.get("words", RETRAINED),
            decided=said.get("decided", []),
            idle=found["nothing"]["outcome"],
            metrics={k: v for k, v in metrics.items() if isinstance(v, float) and v == v},
            thresholds=vars(params.load(workspace.root, "verdict", verdicts.Config)),
            evidence={str(f.relative_to(workspace.root)): digest(f) for f in files},
        )

    def _trained(self, workspace: Workspace, before: str) -> Unlearned:
        """A model that was trained anew; nothing judged it."""
        out = workspace.runs / "train" / "metrics.json"
        return Unlearned(
            model=workspace.model("train"),
            access="retain",
            parameters={"seed": workspace.seed},
            before=before,
            file=str(workspace.model("train").relative_to(self.root)),
            outcome=f"{RETRAINED}; nothing is left to judge it by",
            words=RETRAINED,
            decided=[],
            idle="",
            metrics={k: v for k, v in artifacts.read_json(out).items() if isinstance(v, float)},
            thresholds={},
            evidence={str(out.relative_to(workspace.root)): digest(out)},
        )

    def _anew(self, number: int, asked: Asked) -> dict[str, Any]:
        """Parameters of a training without the samples; another share is its forget set."""
        given = {"split.scenario": "fraction", "split.by_fraction.seed": number}
        return asked.settings | given | {"original.checkpoint": ""}

    def _changes(self, number: int, asked: Asked, method: str) -> dict[str, Any]:
        content, dataset = self._parameters(asked), self._dataset(asked)
        known = content["unlearn"]
        nothing = {"nothing": {"method": "nothing", "data_access": "forget"}}
        tried = {} if method == RETRAIN else self._entry(asked, method)
        twins = self.office.ledger.of(number, "received")[0]["options"]["twins"]
        changes = {
            "split.scenario": "ids",
            "split.by_ids.file": listed(number),
            "split.forget_twins": twins,
            "original.retrain": True,
            "unlearn": nothing | baselines(known) | tried,
        }
        if self.office.production(dataset):
            changes["original.checkpoint"] = PARENT
        return asked.settings | changes

    def _entry(self, asked: Asked, method: str) -> dict[str, Any]:
        """The entry of that name in the section ``unlearn``, else that of the method."""
        known = self._parameters(asked)["unlearn"]
        if method in known:
            return {method: known[method]}
        if method not in Method.__members__:
            choices = dict.fromkeys([*known, *Method.__members__, RETRAIN])
            raise params.ParameterError(
                f"methods must be entries of `unlearn` or methods: {', '.join(choices)}; got "
                f"{params.shown(method)}"
            )
        return {method: entry_of(known, Method(method), {})[1]}

    def _parameters(self, asked: Asked) -> dict[str, Any]:
        return params.changed(params.read(self.root), asked.settings)

    def _dataset(self, asked: Asked) -> str:
        return str(self._parameters(asked)["split"]["dataset"])

    def _with_data(self, asked: Asked) -> Path:
        folder = self._folder(asked)
        children = Children(folder)
        try:
            if folder == self.root:
                children.run(["data"], self.say)
            else:
                bring_data(self.root, children, self.say)
        finally:
            children.end_all()
        return folder

    def _folder(self, asked: Asked) -> Path:
        """A workspace with the parameters of a request."""
        if not asked.settings:
            return self.root
        return prepare(self.root, Cell(name="erasure", changes=asked.settings))
