"""``python -m X --help`` of whatever can be called."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAIN = 'if __name__ == "__main__":'
NOT_OURS = ("flows.running.sqlite", "tasks.graph")  # Prefect's and DVC's own help
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for folder in ("benchmarks", "flows", "imu", "research", "tasks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if MAIN in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", sorted({*MODULES} - {*NOT_OURS}))
def test_help_says_what_a_command_does(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    assert f"python -m {module}" in capsys.readouterr().out
