"""Training by several processes, which share every batch.

Where ``torch.distributed`` is initialised, as under ``torchrun``, each process computes its share
of a batch, gradients are averaged (DistributedDataParallel), and BatchNorm takes its statistics
over the whole batch: the result is that of one process, up to the order of floating-point sums.
"""

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm


class World(NamedTuple):
    rank: int
    size: int

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of the last dimension, which must be divisible by ``size``."""
        part = batch.shape[-1] // self.size
        return batch[..., self.rank * part : (self.rank + 1) * part]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size == 1:
            return values
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / self.size


ALONE = World(0, 1)


def world() -> World:
    """Which process this is; alone where ``torch.distributed`` is not initialised."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """``model``, in which every BatchNorm now takes its statistics over all processes.

    Parameters, running statistics and the names in the state dict stay those of ``model``. Raises
    ValueError for a network with BatchNorm on a CPU: torch synchronises it on GPUs alone.
    """
    if device.type == "cpu" and any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise ValueError(
            "a network with BatchNorm is trained by one process on a CPU (runtime.processes: 1): "
            "torch takes its statistics over several processes on GPUs alone"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def launch(
    work: Callable[..., None], arguments: Sequence[Any], processes: int, backend: str
) -> None:
    """Call ``work(world, *arguments)`` in ``processes`` processes of this machine, to the end.

    work: a function that can be imported. backend: "nccl" for GPUs, "gloo" for CPUs. The processes
    find each other through a file; no port is opened to other machines. When one fails the others
    are ended, and RuntimeError is raised with what it said; all end with this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        together = multiprocessing.spawn(
            _join, (processes, backend, folder, work, arguments), processes, join=False
        )
        try:
            while not together.join():
                pass
        except multiprocessing.ProcessRaisedException as error:
            # The end of a traceback, whose other lines are indented.
            lines = str(error).rstrip().splitlines()
            last = max(n for n, line in enumerate(lines) if line.startswith(" "))
            said = "\n".join(lines[last + 1 :])
            raise RuntimeError(f"process {error.error_index}: {said}") from error
        except multiprocessing.ProcessExitedException as error:
            raise RuntimeError(str(error)) from error
        finally:
            for process in together.processes:
                process.kill()


def _join(
    rank: int,
    size: int,
    backend: str,
    folder: str,
    work: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    # The kernel sends SIGINT when the launching process dies. Python's own handler would not run
    # while this process waits for the others in a collective.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    launcher = multiprocessing.parent_process()
    if launcher is None or not launcher.is_alive():
        raise SystemExit(128 + signal.SIGTERM)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _loopback())
    dist.init_process_group(
        backend, init_method=f"file://{Path(folder, 'store')}", rank=rank, world_size=size
    )
    # Where it fails the connections end with the process, so that the others fail after it.
    work(World(rank, size), *arguments)
    dist.destroy_process_group()


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
