"""Training by several processes, which share every batch.

Where ``torch.distributed`` is initialised, as under ``torchrun``, each process computes its share
of a batch, gradients are averaged (DistributedDataParallel), and BatchNorm takes its statistics
over the whole batch: the result is that of one process, up to the order of floating-point sums.
"""

import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

FOLDER = "IMU_LAUNCH_FOLDER"  # where launched processes find each other
LAUNCHER = "IMU_LAUNCHER"  # the process that launched them
FAILURE = "failure"  # file in that folder: what the first of them that failed said
HANDLED = (signal.SIGTERM, signal.SIGINT)
PR_SET_PDEATHSIG = 1


class World(NamedTuple):
    rank: int
    size: int

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of the last dimension, which must be divisible by ``size``."""
        part = batch.shape[-1] // self.size
        return batch[..., self.rank * part : (self.rank + 1) * part]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size > 1:
            return _summed(values) / self.size
        return values


ALONE = World(0, 1)


def world() -> World:
    """Which process this is; alone where ``torch.distributed`` is not initialised."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def synchronised(model: nn.Module) -> Iterator[None]:
    """Inside the block every BatchNorm of ``model`` takes its statistics over all processes.

    Parameters, running statistics and the names in the state dict stay those of ``model``.
    """
    replaced = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                replaced.append((parent, name, child))
    for parent, name, child in replaced:
        setattr(parent, name, _twin(child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)


def _twin(norm: _BatchNorm) -> nn.Module:
    """A synchronised layer that shares the tensors of ``norm``."""
    device = next((t.device for t in (*norm.parameters(), *norm.buffers())), None)
    if device is not None and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    return _Synchronised(norm)


class _Synchronised(nn.Module):
    """``nn.SyncBatchNorm``, which torch has for GPUs alone, from differentiable sums.

    All processes have equally many samples, so that the mean over the batch is the mean of theirs.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, channels, ...)."""
        if not self.training:
            return F.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.running_mean is None,
                eps=self.eps,
            )
        dims = [0, *range(2, x.ndim)]
        wide = x if x.dtype == torch.float64 else x.float()
        mean = _mean_of_all(wide.mean(dims, keepdim=True))
        variance = _mean_of_all((wide - mean).square().mean(dims, keepdim=True))
        self._track(mean.detach().flatten(), variance.detach().flatten(), x.numel() // x.shape[1])
        found = (wide - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, own: int) -> None:
        """own: how many numbers per channel this process has."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / self.num_batches_tracked.item()
        count = own * dist.get_world_size()
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient of every summand is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _mean_of_all(values: Tensor) -> Tensor:
    return _Sum.apply(values) / dist.get_world_size()


def launch(module: str, arguments: Sequence[str], processes: int) -> None:
    """Run ``python -m module arguments`` in ``processes`` processes of this machine, to the end.

    As ``torchrun`` does: when one fails the others are ended, and so they are on SIGTERM, which
    raises SystemExit here. The processes find each other through a file and ``joined``; no port is
    opened to other machines. Raises RuntimeError with the first error when one fails.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = {number: signal.getsignal(number) for number in HANDLED}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=folder.name,
            rdzv_backend="c10d",
            rdzv_endpoint=str(folder / "rendezvous"),
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=0,
            shutdown_timeout=5,
            signals_to_handle=",".join(number.name for number in HANDLED),
        )
        os.environ |= {FOLDER: name, LAUNCHER: str(os.getpid())}
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            raise RuntimeError(_reason(folder, error.failures)) from error
        except SignalException as stop:
            raise SystemExit(128 + stop.sigval) from stop
        finally:
            del os.environ[FOLDER], os.environ[LAUNCHER]
            for number, handler in before.items():
                signal.signal(number, handler)


def _reason(folder: Path, failures: Mapping[int, Any]) -> str:
    """What the first process that failed said, after those that could say nothing."""
    silent = {rank: failed for rank, failed in failures.items() if failed.exitcode < 0}
    said = [folder / FAILURE] if (folder / FAILURE).exists() else []
    if not said and not silent:
        silent = dict(failures)
    return "; ".join(
        [f"process {rank}: {failed.message}" for rank, failed in silent.items()]
        + [file.read_text() for file in said]
    )


@contextmanager
def joined(backend: str) -> Iterator[World]:
    """Inside the block a process that ``launch`` started is one of ``torch.distributed``.

    It ends with the process that called ``launch``, whatever it is waiting for.
    backend: "nccl" for GPUs, "gloo" for CPUs.
    """
    _end_with_launcher()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _loopback())
    folder, here = (
        Path(os.environ[FOLDER]),
        World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])),
    )
    dist.init_process_group(
        backend, init_method=f"file://{folder / 'store'}", rank=here.rank, world_size=here.size
    )
    try:
        yield here
    except Exception as error:
        # The others fail because of this one, a moment later: who comes first is the cause.
        with suppress(FileExistsError), (folder / FAILURE).open("x") as file:
            file.write(f"process {here.rank}: {type(error).__name__}: {error}")
        raise
    finally:
        dist.destroy_process_group()


def _end_with_launcher() -> None:
    # Python's own handlers do not run while a process waits for the others in a collective.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[LAUNCHER]):
        raise SystemExit(128 + signal.SIGTERM)


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
