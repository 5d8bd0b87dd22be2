"""The small residual network: what differs from torchvision's block."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from imu.models import resnet_small
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("step", [1, 2])
def test_a_pointwise_convolution_is_one_of_the_same_stride(step: int) -> None:
    torch.manual_seed(0)
    layer, maps = resnet_small.Pointwise(3, 5, step).double(), torch.randn(2, 3, 5, 4).double()
    maps.requires_grad_()
    expected = F.conv2d(maps, layer.weight, stride=step)
    # Sums of 3 products in float64, in another order at most.
    torch.testing.assert_close(layer(maps), expected, rtol=0, atol=1e-14)
    asked = [maps, layer.weight]
    for found, right in zip(
        torch.autograd.grad(layer(maps).square().sum(), asked),
        torch.autograd.grad(expected.square().sum(), asked),
        strict=True,
    ):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_narrow_networks_leave_the_heap_whole(layout: torch.memory_format) -> None:
    """In a process of its own, which dies where something writes beyond its memory."""
    code = f"""
import torch
from imu.models.resnet_small import ResNet
torch.set_num_threads(1)
network = ResNet(4, 1, 2).to(memory_format={layout})
kept = []
for _ in range(50):
    network(torch.randn(32, 1, 8, 8).to(memory_format={layout})).sum().backward()
    kept.append([torch.randn(7) for _ in range(20)])
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
