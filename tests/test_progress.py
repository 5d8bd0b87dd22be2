"""Times and lines of a stage are those of the output that lies there."""

from pathlib import Path

from tasks.files import artifacts, progress
from tasks.files.workspace import Workspace


def made(root: Path, content: str, *steps: float) -> Workspace:
    workspace = Workspace(root)
    lines = progress.Progress(workspace, "unlearn/a", ("step", "seconds"))
    for number, seconds in enumerate(steps):
        lines.add(number, seconds)
    artifacts.write_text(workspace.model("unlearn/a"), content)
    return workspace


def test_lines_are_there_while_the_stage_runs_and_times_at_its_end(tmp_path: Path) -> None:
    workspace = made(tmp_path, "model", 0.5, 1.5)
    table = progress.read(workspace, "unlearn/a")
    assert table is not None
    assert table["seconds"].tolist() == [0.5, 1.5]
    assert progress.took(workspace, "unlearn/a") == {}
    progress.ended(workspace, "unlearn/a", seconds=1.5, process_seconds=2.0)
    assert progress.took(workspace, "unlearn/a") == {"seconds": 1.5, "process_seconds": 2.0}
    course = progress.course(workspace, "unlearn/a")
    assert course is not None
    assert course["seconds"].tolist() == [0.5, 1.5]


def test_times_of_another_output_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    workspace = made(tmp_path, "model", 0.5)
    progress.ended(workspace, "unlearn/a", seconds=0.5, process_seconds=2.0)
    artifacts.write_text(workspace.model("unlearn/a"), "restored")
    assert progress.took(workspace, "unlearn/a") == {}
    assert progress.course(workspace, "unlearn/a") is None


def test_lines_of_a_try_that_was_killed_are_not_those_of_the_output(tmp_path: Path) -> None:
    workspace = made(tmp_path, "model", 0.5)
    progress.ended(workspace, "unlearn/a", seconds=0.5, process_seconds=2.0)
    progress.Progress(workspace, "unlearn/a", ("step", "seconds"))
    assert progress.read(workspace, "unlearn/a") is None
    assert progress.took(workspace, "unlearn/a")["seconds"] == 0.5
    assert progress.course(workspace, "unlearn/a") is None


def test_a_stage_without_a_model_has_no_times(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert progress.when_ended(workspace, "split") == 0
    progress.ended(workspace, "split", seconds=None, process_seconds=1.0)
    assert progress.took(workspace, "split") == {}
    assert progress.when_ended(workspace, "split") > 0
