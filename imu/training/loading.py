"""Images on the device as uint8 where they fit, else read batch by batch by worker processes.

Both give the same batches; the order is the caller's.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imu.datasets import LabelledImages
from imu.datasets.common.tensors import Batch, pixels


class Source(Protocol):
    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch per entry of ``order``, on the device; an entry counts within the rows."""


def source(
    data: LabelledImages, rows: list[int], device: torch.device, *, share: float, workers: int
) -> Source:
    """The given rows of ``data``: resident where they take at most ``share`` of free memory.

    workers: processes that read where they do not fit; 0 reads in this one.
    """
    size = len(rows) * data.images[:1].nbytes
    if size <= share * free_memory(device):
        return Resident(*pixels(data, rows, device))
    return Streamed(data, rows, device, workers)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; on a CPU what the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Resident:
    images: Tensor
    labels: Tensor

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        for chosen in order:
            batch = chosen.to(self.labels.device, non_blocking=True)
            yield self.images[batch], self.labels[batch]


class Streamed:
    """Workers read ahead; on a GPU through pinned memory, so that copies do not wait."""

    def __init__(
        self, data: LabelledImages, rows: list[int], device: torch.device, workers: int
    ) -> None:
        self.device = device
        self.labels = torch.from_numpy(data.labels[rows])
        self.order: list[list[int]] = []
        self.loader: DataLoader[Tensor] = DataLoader(
            _Rows(data.images, np.asarray(rows)),
            batch_sampler=_Order(self.order),
            collate_fn=_unchanged,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # Otherwise workers would get a copy of the images, a memory map included.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # Workers draw no random number, but the loader would draw one for each of them.
            generator=torch.Generator(),
        )

    def batches(self, order: Sequence[Tensor]) -> Iterator[Batch]:
        self.order[:] = [chosen.tolist() for chosen in order]
        for chosen, images in zip(order, self.loader, strict=True):
            labels = self.labels[chosen]
            yield (
                images.to(self.device, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )


class _Order:
    """A batch sampler of whatever the list holds when an epoch begins."""

    def __init__(self, order: list[list[int]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Rows(Dataset[Tensor]):
    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: int) -> Tensor:
        return self.__getitems__([chosen])[0]

    def __getitems__(self, chosen: list[int]) -> Tensor:
        return torch.from_numpy(np.asarray(self.images[self.rows[chosen]]))


def _unchanged(batch: Any) -> Any:
    return batch
