"""Random shifts and mirror images of whole batches, as one gather on their device.

The same as torchvision's RandomCrop with zero padding, then RandomHorizontalFlip, image by image.
Random numbers come from a CPU generator on every device, so that a seed means the same on all.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Moves(NamedTuple):
    """Random numbers of one batch of n images."""

    offsets: Tensor  # (2, n), int64: rows and columns, from 0 to 2 * shift; shift leaves in place
    flips: Tensor  # (n,), bool: whether left and right are exchanged


def draw(n: int, *, shift: int, flip: bool, generator: torch.Generator) -> Moves:
    """Moves of ``n`` images by up to ``shift`` pixels; half of them flipped where ``flip``.

    What is switched off draws no random number.
    """
    offsets = torch.zeros(2, n, dtype=torch.int64)
    flips = torch.zeros(n, dtype=torch.bool)
    if shift:
        offsets = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=generator)[..., 0]
    if flip:
        flips = torch.randint(0, 2, (n,), generator=generator).bool()
    return Moves(offsets, flips)


def augmented(images: Tensor, moves: Moves, *, shift: int, flip: bool) -> Tensor:
    """Each image moved by its offsets, then flipped; what enters is 0.

    images: (n, channels, height, width) of any type; same shape and type back.
    """
    if not shift and not flip:
        return images
    height, width = images.shape[2:]
    device = images.device
    offsets = moves.offsets.to(device, non_blocking=True)[..., None]  # (2, n, 1)
    across = torch.arange(width, device=device)
    if flip:
        flips = moves.flips.to(device, non_blocking=True)[:, None]  # (n, 1)
        across = torch.where(flips, across.flip(0), across)  # (n, width)
    rows = offsets[0] + torch.arange(height, device=device)  # (n, height)
    columns = offsets[1] + across  # (n, width)
    padded = F.pad(images, (shift,) * 4)
    sample = torch.arange(len(images), device=device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    moved = padded[sample, :, rows[:, :, None], columns[:, None, :]]  # (n, height, width, channels)
    return moved.permute(0, 3, 1, 2)
