"""A small residual network for small images (He et al. 2016, arXiv 1512.03385, basic blocks).

Stem, three stages of one basic block (widths w, 2w, 4w; the last two halve the resolution),
global average pooling, linear head. torchvision's block is the same; importing torchvision
costs 1.4 s, which is why it is not used here.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 32  # channels of the first stage

    def __post_init__(self) -> None:
        check_fields(self, width="in [1, 1024]")


def build(config: Config, image: tuple[int, int, int], classes: int) -> nn.Module:
    """A freshly initialised network for images (n, channels, height, width)."""
    return ResNet(config.width, image[0], classes)


class ResNet(nn.Module):
    def __init__(self, width: int, channels: int, classes: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            Block(width, width, stride=1),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(self.stem(images))  # (n, 4w, height/4, width/4)
        return self.head(maps.mean((2, 3)))  # (n, classes)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(maps)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(maps))


class Pointwise(nn.Conv2d):
    """A convolution of 1×1 pixels without bias, of every ``step``-th pixel.

    By a stride of its own it would read the same ones. That of oneDNN 3.13 (torch 2.15) writes
    beyond its memory where there are fewer than 8 channels, on CPUs without AVX-512.
    """

    def __init__(self, inputs: int, outputs: int, step: int):
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = step

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps[:, :, :: self.step, :: self.step])
