"""dvc.yaml against the code: what a stage imports is what DVC watches."""

import ast
import importlib.util
import sys
from functools import cache
from pathlib import Path

import grimp
import mlflow
import pytest
from ruamel.yaml import YAML

from flows.running.stages import reached, weights
from tasks.graph.stages import opened, stages
from tests.conftest import REPOSITORY, run

NOT_OUTPUT = {"tasks", "imu", "imu.models"}  # docstrings, and names from elsewhere


@cache
def modules() -> grimp.ImportGraph:
    return grimp.build_graph("imu", "tasks", cache_dir=None)


@cache
def watched(root: Path) -> dict[str, tuple[str, list[str]]]:
    """Stage name -> module, and the paths that its dependencies name."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return {
            stage.addressing: (
                f"tasks.{stage.cmd.split()[4]}",
                [dependency.def_path for dependency in stage.deps],
            )
            for stage in repo.index.stages
            if stage.cmd
        }


@pytest.mark.parametrize("name", sorted(watched(REPOSITORY).keys() - {"track"}))
def test_a_stage_depends_on_all_code_that_it_imports(name: str) -> None:
    module, paths = watched(REPOSITORY)[name]
    needed = {module} | modules().find_upstream_modules(module)
    for imported in needed - NOT_OUTPUT:
        spec = importlib.util.find_spec(imported)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).relative_to(REPOSITORY)
        covered = any(path == Path(p) or Path(p) in path.parents for p in paths)
        assert covered, f"{name} imports {path}, which dvc.yaml does not list for it"


@pytest.mark.parametrize("name", sorted(NOT_OUTPUT))
def test_what_no_stage_watches_computes_nothing(name: str) -> None:
    path = REPOSITORY.joinpath(*name.split("."), "__init__.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If | ast.FunctionDef):  # names that are imported when asked for
            assert name == "imu"
            assert ast.unparse(node).startswith(("if TYPE_CHECKING:", "def __getattr__("))
        else:  # a docstring, names, __all__
            assert isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign)


def test_every_method_of_params_yaml_is_a_stage_and_an_evaluation() -> None:
    from tasks.files import params

    found = watched(REPOSITORY)
    for item in params.section(REPOSITORY, "unlearn"):
        assert {f"unlearn@{item}", f"evaluate@{item}"} <= found.keys()


def test_unlearning_depends_on_retain_data_only_where_the_method_declares_it() -> None:
    from imu import discovery
    from tasks.files import params

    entries = params.section(REPOSITORY, "unlearn")
    for name, (_, paths) in watched(REPOSITORY).items():
        if name.startswith("unlearn@"):
            needs = discovery.load("imu.methods", entries[name[8:]]["method"]).NEEDS
            manifests = {Path(p).stem for p in paths if p.startswith("runs/split/")}
            expected = {"forget", "request"} | ({"retain"} if "retain" in needs else set())
            assert manifests == expected, name
            assert "runs/split" not in paths


def test_the_graph_runs_every_stage_after_those_it_needs() -> None:
    graph = stages(REPOSITORY)
    seen: set[str] = set()
    for name, stage in graph.items():
        assert stage.needs <= seen
        seen.add(name)
    assert "train" in graph["influence"].needs
    assert {"unlearn@imu", "retrain@reference"} <= graph["evaluate@imu"].needs


def test_training_goes_first_and_the_report_last() -> None:
    weight = weights(stages(REPOSITORY))
    assert weight["split"] > weight["train"] > weight["retrain@reference"]
    assert weight["retrain@reference"] > weight["retrain@retrain_2"]
    assert min(weight, key=lambda name: weight[name]) == "track"


def test_what_is_up_to_date_and_needs_nothing_that_is_not_is_left_alone() -> None:
    graph = stages(REPOSITORY)
    assert reached(graph, set()) == set()
    assert reached(graph, {"split"}) == set(graph)
    assert reached(graph, {"unlearn@imu"}) == {"unlearn@imu", "evaluate@imu", "report", "track"}


def test_the_library_imports_without_the_pipeline() -> None:
    names = [name for name in modules().modules if name.split(".")[0] == "imu"]
    blocked = "import sys; sys.modules.update(dict.fromkeys(['prefect', 'mlflow', 'dvc', 'tasks']))"
    run(sys.executable, "-c", f"{blocked}; import {', '.join(names)}", cwd=REPOSITORY)


def test_the_folder_mlflow_does_not_hide_the_library() -> None:
    assert not list((REPOSITORY / "mlflow").rglob("*.py"))
    assert mlflow.__file__ is not None
    assert not Path(mlflow.__file__).is_relative_to(REPOSITORY / "mlflow")


def test_the_committed_lock_was_made_from_this_code_and_these_parameters() -> None:
    """If this fails: `make run`, and commit dvc.lock."""
    from dvc.stage.utils import split_params_deps

    locked = YAML(typ="safe").load((REPOSITORY / "dvc.lock").read_text())["stages"]
    with opened(REPOSITORY) as repo:
        known = {stage.name: stage for stage in repo.index.stages if stage.cmd}
        assert known.keys() == locked.keys()
        for name, stage in known.items():
            parameters, files = split_params_deps(stage)
            hashes = {file["path"]: file["md5"] for file in locked[name]["deps"]}
            for file in files:
                if not file.def_path.startswith(("data/", "runs/")):
                    file.save()
                    assert hashes[file.def_path] == file.hash_info.value, (name, file.def_path)
            for source in parameters:
                source.save()
                assert locked[name]["params"][source.def_path] == source.hash_info.value, name


def test_a_workspace_of_a_clone_draws_plots_without_a_network(tmp_path: Path) -> None:
    from dvc.config import Config

    from tasks.graph.configuration import configure_as

    configure_as(REPOSITORY, tmp_path)
    page = Path(Config(str(tmp_path / ".dvc"))["plots"]["html_template"])
    assert page.is_absolute()
    assert page.read_text().count("{plot_divs}") == 1


def test_dvc_shows_what_the_report_makes() -> None:
    """Metrics and plots of the top level name outputs of the report, and templates that exist."""
    graph = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())
    (made,) = graph["stages"]["report"]["outs"]
    assert all(path.startswith(f"{made}/") for path in graph["metrics"])
    for plot in graph["plots"]:
        ((_, of),) = plot.items()
        assert all(path.startswith(f"{made}/") for path in of["y"])
        assert "<DVC_METRIC_DATA>" in (REPOSITORY / of["template"]).read_text()
    listed = [s.get("do", s) for s in graph["stages"].values()]
    assert not any({"metrics", "plots"} & stage.keys() for stage in listed)
