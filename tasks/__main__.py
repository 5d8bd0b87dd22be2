"""``python -m tasks STAGE [ITEM]`` computes and logs a stage of the current folder.

python -m tasks train                 one stage, as `dvc repro` runs it
python -m tasks evaluate unlearn/imu
python -m tasks log train             log outputs that are on disk but not in MLflow
python -m tasks data                  write data/ where it is missing, and check it
python -m tasks check                 every parameter, as far as that goes without the data
python -m tasks store                 create MLflow's store and experiment where they are missing
python -m tasks show                  the table of results
python -m tasks entries               a line for params.yaml of every method there is
python -m tasks tune                  every candidate for the methods' parameters
python -m tasks tune JSON             some candidates of one method (tasks/tune.py); JSON at the end
python -m tasks open | close STATUS   begin or end the run of the whole pipeline in MLflow
python -m tasks group NAME | ungroup RUN STATUS FILES   begin or end the run of a sweep in MLflow
python -m tasks group NAME KEY        begin the run of a search, or take it up again
python -m tasks trials RUN FILE       log the trials of a search that its run does not have yet
python -m tasks restore NAME          a stage's outputs from DVC's cache and remote; or say "absent"
python -m tasks dvc ARGUMENTS         DVC itself, ending with the process that called it
python -m tasks key                   the pipeline key of dvc.lock, as MLflow's tag has it
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main(arguments: list[str], *, forked: bool = False) -> int:
    """Exit status: 0 done, 1 a clear error, 2 wrong call, 3 computed but not logged."""
    end_with_parent()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if "IMU_WARM" in os.environ and not forked:
        from tasks import warm

        status = warm.call(arguments, os.environ["IMU_WARM"])
        if status is not None:
            return status
        print(f"no warm start at {os.environ['IMU_WARM']}: starting cold", flush=True)
    if arguments[0] in ("data", "dvc"):
        from tasks.graph import torn

        try:
            torn.mend(Path.cwd())
        except RuntimeError as error:
            print(f"{' '.join(arguments)} failed: {error}", file=sys.stderr)
            return 1
    if arguments[0] == "dvc":
        from dvc.cli import main as dvc

        from tasks.graph import lockfile

        lockfile.by_stage()
        return dvc(arguments[1:])
    from tasks import data
    from tasks.files.workspace import Workspace
    from tasks.graph import lineage
    from tasks.tracking import runs, session, summary

    workspace = Workspace(Path.cwd())
    try:
        match arguments:
            case ["key"]:
                keys = lineage.locked_keys(workspace.root)
                present = [name for name in lineage.commands(workspace.root) if name in keys]
                print(lineage.pipeline_key({name: keys[name] for name in present}))
            case ["data"]:
                data.prepare(workspace)
            case ["check"]:
                from tasks import check

                check.everything(workspace)
            case ["entries"]:
                from tasks import unlearn
                from tasks.files import params

                for name, entry in unlearn.entries().items():
                    print(f"  {params.line({name: entry})}")
            case ["tune"]:
                from tasks import tune

                tune.run(workspace)
            case ["tune", content]:
                from tasks import tune

                print(json.dumps(tune.asked(workspace, content)))
            case ["store"]:
                runs.Tracker(workspace)
            case ["show"]:
                print(summary.shown(workspace))
            case ["restore", name]:
                print("restored" if lineage.restore(workspace.root, name) else "absent")
            case ["open"]:
                print(json.dumps(summary.opened(workspace)))
            case ["group", name]:
                print(json.dumps(summary.grouped(workspace, name)))
            case ["group", name, key]:
                print(json.dumps(summary.grouped(workspace, name, key)))
            case ["trials", run, file]:
                summary.tried(workspace, run, Path(file))
            case ["ungroup", run, ending, *files]:
                summary.group_ended(workspace, run, ending, [Path(file) for file in files])
            case ["close", ending]:
                print(json.dumps(summary.closed(workspace, ending)))
            case ["log", stage]:
                session.log(workspace, stage, None)
            case ["log", stage, item]:
                session.log(workspace, stage, item)
            case [stage]:
                session.run(workspace, stage, None)
            case [stage, item]:
                session.run(workspace, stage, item)
            case _:
                print(__doc__)
                return 2
    except session.NotLoggedError as error:
        print(f"not logged: {error}", file=sys.stderr)
        return 3
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("IMU_TRACEBACK"):
            raise
        print(f"{' '.join(arguments)} failed: {error}", file=sys.stderr)
        return 1
    return 0


def end_with_parent() -> None:
    """End cleanly on SIGTERM, and receive it when the process that started this one dies.

    Without it a stage outlives a killed DVC and goes on writing beside its successor.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
