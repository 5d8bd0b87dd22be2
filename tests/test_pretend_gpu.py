"""Stages on a GPU, as far as that can be known without one: see ``pretend_gpu``."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tasks import unlearn
from tasks.files import params
from tasks.graph.stages import stages as every_stage
from tests.conftest import REPOSITORY, make_workspace, run

TRIED = """
import json, sys, torch
from torch.nn import functional as F
from tests.pretend_gpu import DEVICE, LATER, register
register()
def told(code):
    LATER.clear()
    try:
        eval(code, globals() | {"far": torch.ones(3, device=DEVICE), "near": torch.ones(3)})
    except RuntimeError as error:
        return str(error)
    return LATER[0] if LATER else ""
print(json.dumps([told(code) for code in json.loads(sys.argv[1])]))
"""
REFUSED = {
    "far + near": "tensors on cpu, of shapes [(3,)], and on pretend",
    "far.index_add(0, torch.arange(3), near)": "tensors on cpu",
    "near[torch.ones(1, device=DEVICE).long()]": "tensors on cpu",
    "torch.cat([far, near])": "tensors on cpu",
    "torch.tensor(0.0).add_(far.sum())": "tensors on cpu",
    "far.index_put_((torch.tensor([0]),), near[:1])": "tensors on cpu",
    "far.numpy()": "not supported",
    "torch.randn(3, device=DEVICE, generator=torch.Generator())": "a generator on cpu",
    "torch.empty(3, device=DEVICE, pin_memory=True)": "only memory of the CPU can be pinned",
    "torch.bincount(far.long(), far)": "no deterministic implementation on GPUs",
    "far.median(0)": "no deterministic implementation on GPUs",
    "F.adaptive_avg_pool2d(far.expand(1, 8, 3, 3).clone().requires_grad_(), 2).sum().backward()": (
        "no deterministic implementation on GPUs"
    ),
}
TAKEN = (
    "far + torch.tensor(1.0)",
    "far[torch.tensor([0, 2])]",
    "far[[]]",
    "far.copy_(near)",
    "near.copy_(far)",
    "far.cpu().numpy()",
    "far.quantile(0.5).item()",
    "torch.bincount(far.long())",
    "torch.randperm(3, generator=torch.Generator()).to(DEVICE)",
)


def in_child(*arguments: str, cwd: Path = REPOSITORY) -> str:
    return run(sys.executable, *arguments, cwd=cwd, PYTHONPATH=str(REPOSITORY)).stdout


def test_it_refuses_what_a_gpu_refuses_and_nothing_else() -> None:
    codes = [*REFUSED, *TAKEN]
    told = dict(zip(codes, json.loads(in_child("-c", TRIED, json.dumps(codes))), strict=True))
    for code, why in REFUSED.items():
        assert why in told[code], code
    assert {code: told[code] for code in TAKEN} == dict.fromkeys(TAKEN, "")


def compared(workspace: Path, stages: list[str]) -> None:
    """The stages away, and near; what they write is the same to the last bit."""
    run("dvc", "repro", "-q", "split", cwd=workspace)
    outputs = []
    for where in ([], ["--near"]):
        said = in_child("-m", "tests.pretend_gpu", *where, *stages, cwd=workspace)
        # report and the like compute nothing with tensors.
        idle = [stage for stage in stages if f"{stage}: 0 operations away" in said]
        assert len(idle) == len(stages) if where else not set(idle) & {*stages[:4]}
        written = {
            path.relative_to(workspace): path.read_bytes()
            for path in (workspace / "runs").rglob("*")
            if path.is_file() and path.suffix in (".safetensors", ".parquet", ".json", ".csv")
        }
        outputs.append(
            {path: content for path, content in written.items() if ".progress" not in path.parts}
        )
        for stage in {path.parts[1] for path in written} - {"split", ".progress"}:
            shutil.rmtree(workspace / "runs" / stage)
    away, near = outputs
    assert away.keys() == near.keys()
    assert len(away) > len(stages)
    assert [str(path) for path in near if away[path] != near[path]] == []


def made(root: Path, methods: dict[str, dict]) -> Path:
    return make_workspace(root, {"train": {"epochs": 1}, "unlearn": methods})


@pytest.mark.slow
def test_stages_compute_on_a_gpu_what_they_compute_on_a_cpu(tmp_path: Path) -> None:
    deep = params.section(REPOSITORY, "unlearn.imu_deep") | {"epochs": 2}
    workspace = made(tmp_path / "workspace", {"imu_deep": deep})
    compared(workspace, ["train", "influence", "unlearn@imu", "unlearn@imu_deep"])


@pytest.mark.long
def test_so_does_every_other_stage_with_every_method(tmp_path: Path) -> None:
    workspace = made(tmp_path / "workspace", unlearn.entries())
    names = every_stage(workspace)
    compared(workspace, [name for name in names if name not in ("split", "report", "track")])
