"""Print the table of results, and log to MLflow what the stages left on disk: the last stage.

A flow logs stages as they end, and prints the table; then this one has nothing left to do.
"""

import os
from pathlib import Path

from tasks.files.workspace import Workspace


def run(workspace: Workspace, item: None) -> None:
    """An experiment of DVC is logged where its clone is, not in the folder that goes with it.

    Raises TrackingError when MLflow does not take it: the results are complete all the same.
    """
    from tasks import report
    from tasks.tracking.record import present
    from tasks.tracking.store import address
    from tasks.tracking.tracker import Context, Tracker, logged_already

    store = address(Path(os.environ.get("DVC_ROOT", workspace.root)))  # DVC sets it to the clone
    if known := logged_already(workspace, store):
        print(f"{report.shown(workspace)}\nMLflow has it: run {known}")
        return
    experiment = os.environ.get("DVC_EXP_NAME")
    tags = {"dvc.experiment": experiment} if experiment else {}
    tracker = Tracker(workspace, Context(store=store, tags=tags))
    try:
        page = tracker.finish(present(workspace).keys())
    except BaseException as error:
        tracker.fail("FAILED", str(error))
        raise
    print(f"{report.shown(workspace)}\nlogged to {page.uri}: run {page.run}")
