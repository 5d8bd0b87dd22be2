"""Also what ``torchrun`` runs: ``python -m tests.test_distributed FOLDER SETTING``."""

import json
import signal
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from torch import distributed as dist
from torch import nn

from imu import ensemble, training
from imu.models import resnet_small, vit
from imu.training import distributed
from tasks.files import params
from tasks.files.workspace import Runtime
from tests.conftest import REPOSITORY, make_workspace, processes_in, run, start_cold, started
from tests.test_ensemble import CONFIG, CPU, ROWS, Double, farness, noise

BASE = replace(CONFIG, shift=1, flip=True, label_smoothing=0.1)
SETTINGS = {
    "together": BASE,
    "one alone": BASE,
    "streamed": replace(BASE, memory_share=0.0, workers=1),
    "compiled": replace(BASE, compile=True),
    "odd": replace(BASE, batch_size=15),
    "diverging": replace(BASE, learning_rate=1e300),
    "one fails": BASE,
}
# A network without BatchNorm, which several processes on a CPU refuse.
VIT = vit.Config(layers=1, heads=1, width=8, mlp_width=8)
# Six steps of float64; sums in another order are 1e-16 off, and training amplifies that.
CLOSE = 1e-10
LONG = pytest.mark.long


def network() -> nn.Module:
    torch.manual_seed(0)
    return Double(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)))


def trained(setting: str) -> tuple[nn.Module, list[training.Epoch]]:
    model = network()
    config = SETTINGS[setting]
    return model, list(training.fit(model, noise(3), ROWS, config, seed=4, device=CPU))


def process(folder: Path, setting: str) -> None:
    """What each of the processes does; leaves its weights and epochs in ``folder``."""
    torch.set_num_threads(1)
    rank = dist.get_rank()
    if setting == "one fails" and rank == 1:
        raise ArithmeticError("a process of two")
    torch.manual_seed(rank)  # what a process draws for itself has no say
    with pytest.MonkeyPatch.context() as patch:
        if setting == "one alone":
            patch.setattr(nn.parallel, "DistributedDataParallel", lambda model, **_: model)
        if setting == "compiled":
            patch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        model, epochs = trained(setting)
    if setting == "together":
        with pytest.raises(ValueError, match="an ensemble is trained by one process, got 2"):
            next(ensemble.fit([model], noise(3), ROWS, BASE, seeds=[0], device=CPU))
    torch.save((model.state_dict(), [tuple(e) for e in epochs]), folder / f"{setting} {rank}.pt")


def processes(world: distributed.World, folder: Path, *settings: str) -> None:
    for setting in settings:
        process(folder, setting)


def both(folder: Path, setting: str) -> tuple[list[nn.Module], list[list[tuple]]]:
    """What the processes left."""
    models, epochs = [], []
    for rank in range(2):
        state, found = torch.load(folder / f"{setting} {rank}.pt", weights_only=False)
        model = network()
        model.load_state_dict(state)
        models.append(model)
        epochs.append(found)
    return models, epochs


def launched(folder: Path, *settings: str) -> None:
    distributed.launch(processes, [folder, *settings], 2, "gloo")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they trained, one setting after the other."""
    folder = tmp_path_factory.mktemp("left")
    run(
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "tests.test_distributed", str(folder), "together"),
        cwd=REPOSITORY,
    )
    launched(folder, "streamed", "compiled", "one alone")
    return folder


@pytest.mark.parametrize("setting", ["together", "streamed", "compiled"])
def test_two_processes_give_the_result_of_one(left: Path, setting: str) -> None:
    models, epochs = both(left, setting)
    one, expected = trained("together")
    assert farness(models[:1], models[1:]) == 0.0
    assert farness([one], models[:1]) < CLOSE
    assert epochs[0] == epochs[1]
    for found, right in zip(epochs[0], expected, strict=True):
        assert found == pytest.approx(tuple(right), rel=1e-6)  # reported in float32


def test_a_process_that_shares_no_gradients_ends_elsewhere(left: Path) -> None:
    (found, _), _ = both(left, "one alone")
    assert farness([trained("together")[0]], [found]) > 1e-3


def test_batch_norm_is_synchronised_on_gpus_and_refused_on_a_cpu() -> None:
    model = resnet_small.build(resnet_small.Config(width=2), (3, 6, 4), 3)
    with pytest.raises(ValueError, match="BatchNorm is trained by one process on a CPU"):
        distributed.synchronised(model, CPU)
    before = dict(model.named_parameters())
    found = distributed.synchronised(model, torch.device("cuda"))
    kinds = [type(module) for module in found.modules()]
    assert nn.SyncBatchNorm in kinds
    assert nn.BatchNorm2d not in kinds
    assert all(value is before[name] for name, value in found.named_parameters())
    assert distributed.synchronised(network(), CPU) is not None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param(
            "odd",
            r"process [01]: ValueError: batch_size must be divisible by .* \(2\), got 15",
            marks=LONG,
        ),
        (
            "diverging",
            r"process [01]: FloatingPointError: training loss is nan in epoch 1, step 2 of 3",
        ),
        pytest.param("one fails", "process 1: ArithmeticError: a process of two", marks=LONG),
    ],
)
def test_a_process_that_fails_ends_all_and_says_why(
    setting: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=message):
        launched(tmp_path, setting)
    assert not list(tmp_path.iterdir())


def test_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(ValueError, match=r"processes must be in \[1, 1024\], got 0"):
        Runtime(processes=0)


def of_several(root: Path, changes: dict[str, Any]) -> Path:
    """A workspace whose network several processes on a CPU can train."""
    make_workspace(root, changes)
    content = params.read(root) | {"network": {"name": "vit", **asdict(VIT)}}
    (root / params.FILE).write_text(params.block(content))
    return root


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace where two processes train, for long."""
    changes = {"runtime": {"processes": 2}, "train": {"epochs": 2000}}
    root = of_several(tmp_path_factory.mktemp("distributed") / "workspace", changes)
    run("python", "-m", "tasks", "split", cwd=root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number", "status", "start"),
    [
        ("stage", signal.SIGKILL, -signal.SIGKILL, "warm"),
        pytest.param("stage", signal.SIGTERM, 128 + signal.SIGTERM, "warm", marks=LONG),
        pytest.param("stage", signal.SIGKILL, -signal.SIGKILL, "cold", marks=LONG),
        pytest.param("one process", signal.SIGKILL, 1, "warm", marks=LONG),
    ],
)
def test_no_process_outlives_the_stage(
    split: Path,
    victim: str,
    number: signal.Signals,
    status: int,
    start: str,
) -> None:
    if start == "cold":
        start_cold(split)
    stage = started(split, sys.executable, "-m", "tasks", "train", until="epoch 2/2000")
    together = processes_in(split)
    training = [process for process in together if "--multiprocessing-fork" in process.cmdline()]
    assert len(training) == 2
    if victim == "stage":
        stage.send_signal(number)
    else:
        training[1].send_signal(number)
    assert stage.wait(timeout=20) == status
    assert not psutil.wait_procs(together, timeout=20)[1]
    assert not (split / "runs" / "train" / "model.safetensors").exists()
    if victim == "one process":
        assert (
            "train failed: process 1 terminated with signal SIGKILL"
            in (split.parent / f"{split.name}.log").read_text()
        )


@pytest.mark.slow
@pytest.mark.long
def test_a_stage_of_two_processes_writes_what_one_would(tmp_path: Path) -> None:
    roots = [tmp_path / "1", tmp_path / "2"]
    for n, root in enumerate(roots, 1):
        of_several(root, {"runtime": {"processes": n}, "split": {"used": 1.0}})
    for root in roots:
        run("python", "-m", "tasks", "split", cwd=root)
        run("python", "-m", "tasks", "train", cwd=root)
    one, two = (pd.read_csv(root / "runs" / "train" / "curve.csv") for root in roots)
    # 33 steps of float32.
    pd.testing.assert_frame_equal(one, two, rtol=1e-2)
    one, two = (
        json.loads((root / "runs" / "train" / "metrics.json").read_text()) for root in roots
    )
    assert one["flops"] == two["flops"]
    assert one.keys() == two.keys()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    process(Path(sys.argv[1]), sys.argv[2])
    dist.destroy_process_group()
