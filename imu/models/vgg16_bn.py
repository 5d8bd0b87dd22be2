"""VGG-16 with BatchNorm (Simonyan & Zisserman 2015, arXiv 1409.1556, configuration D).

The feature layers are torchvision's. As is usual for CIFAR, global average pooling and one linear
layer take the place of the paper's three, which fit images of 224×224 alone.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

SMALLEST = 32  # pixels: the feature layers halve the resolution five times


@dataclass(frozen=True, kw_only=True)
class Config:
    pass


def build(config: Config, image: tuple[int, int, int], classes: int) -> nn.Module:
    """A freshly initialised network for images (n, channels, height, width).

    Raises ValueError for an image smaller than 32×32.
    """
    channels, height, width = image
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"vgg16_bn needs images of at least {SMALLEST}×{SMALLEST}, got {height}×{width}"
        )
    return Vgg(channels, classes)


class Vgg(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=True)
        self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        self.head = nn.Linear(512, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)  # (n, 512, height/32, width/32)
        return self.head(maps.mean((2, 3)))  # (n, classes)


def _initialise(module: nn.Module) -> None:
    """As torchvision does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
