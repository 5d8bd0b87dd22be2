"""``python -m X --help`` of whatever can be called."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAIN = 'if __name__ == "__main__":'
# The help of Prefect and of DVC; and what imports for ten seconds.
LEFT_OUT = ("flows.running.sqlite", "tasks.graph", "benchmarks.gpu", "benchmarks.gpu.page")
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"): file
    for folder in ("benchmarks", "flows", "imu", "research", "tasks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if MAIN in file.read_text(encoding="utf-8")
}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {*LEFT_OUT}))
def test_help_says_what_a_command_does(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    for name in ("tasks.starting.ending", "tasks.starting.warm"):  # it is of a process of its own
        monkeypatch.setattr(f"{name}.end_with_parent", lambda: None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FILES[module]), run_name="__main__")
    assert not ended.value.code
    assert f"python -m {module}" in capsys.readouterr().out
