"""Print the table of results, and log to MLflow what the stages left on disk: the last stage.

A flow does both, and has DVC take this one as done.
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
    from tasks.tracking.store import LAST, address
    from tasks.tracking.tracker import Context, Tracker

    clone = Path(os.environ.get("DVC_ROOT", workspace.root))  # as DVC sets it
    (clone / LAST).unlink(missing_ok=True)  # from here on this one is the last run
    experiment = os.environ.get("DVC_EXP_NAME")
    tags = {"dvc.experiment": experiment} if experiment else {}
    tracker = Tracker(workspace, Context(store=address(clone), tags=tags))
    try:
        page = tracker.finish(present(workspace).keys())
    except BaseException as error:
        tracker.fail("FAILED", str(error))
        raise
    print(f"{report.shown(workspace)}\nlogged to {page.uri}: run {page.run}")
