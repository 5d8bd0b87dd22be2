"""ResNet-18 (He et al. 2016, arXiv 1512.03385, table 1), torchvision's.

The stem "imagenet" is the paper's: 7×7, stride 2, then max-pooling, which leaves 1/4 of the
resolution. "small" is the usual one for CIFAR: 3×3, stride 1, no pooling.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from imu.bounds import check_fields

Stem = Literal["small", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Config:
    stem: Stem = "small"

    def __post_init__(self) -> None:
        check_fields(self)


def build(config: Config, image: tuple[int, int, int], classes: int) -> nn.Module:
    """A freshly initialised network for images (n, channels, height, width), of any size."""
    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    small = config.stem == "small"
    size, stride, padding = (3, 1, 1) if small else (7, 2, 3)
    network.conv1 = nn.Conv2d(image[0], 64, size, stride, padding, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small:
        network.maxpool = nn.Identity()
    network.avgpool = Mean()
    return network


class Mean(nn.Module):
    """Global average pooling. torchvision's adaptive one has no fast form for stacked networks."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3), keepdim=True)  # (n, 512, 1, 1)
