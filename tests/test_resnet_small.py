"""The small residual network: what differs from torchvision's block."""

import pytest
import torch
from torch.nn import functional as F

from imu.models import resnet_small


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
