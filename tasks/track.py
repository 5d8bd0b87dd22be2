"""Log to MLflow what the stages left on disk: the last stage of the graph.

A flow logs stages as they end; then there is nothing left for this one to do.
"""

from tasks.files.workspace import Workspace


def run(workspace: Workspace, item: None) -> None:
    """Raises TrackingError when MLflow does not take it: the results are complete all the same."""
    from tasks.tracking.record import present
    from tasks.tracking.tracker import Tracker, logged_already

    if known := logged_already(workspace):
        print(f"MLflow has it: run {known}")
        return
    tracker = Tracker(workspace)
    try:
        page = tracker.finish(present(workspace).keys())
    except BaseException as error:
        tracker.fail("FAILED", str(error))
        raise
    print(f"logged to {page.uri}: run {page.run}")
