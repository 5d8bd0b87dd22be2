"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), torchvision's.

The default has the width, heads and MLP of ViT-Ti (Touvron et al. 2021, arXiv 2012.12877, table 1)
and half its layers, on patches of 4×4. torchvision starts the head at zero.
"""

from dataclasses import dataclass

from torch import nn
from torchvision.models import VisionTransformer

from imu.bounds import check_fields


@dataclass(frozen=True, kw_only=True)
class Config:
    patch_size: int = 4  # pixels
    layers: int = 6
    heads: int = 3  # of attention; they share the width
    width: int = 192
    mlp_width: int = 768
    dropout: float = 0.0  # share; above 0 such networks cannot be trained in a stack

    def __post_init__(self) -> None:
        sizes = dict.fromkeys(("patch_size", "layers", "heads"), "in [1, 1024]")
        sizes |= dict.fromkeys(("width", "mlp_width"), "in [1, 65536]")
        check_fields(self, **sizes, dropout="in [0, 1)")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}), got {self.width}")


def build(config: Config, image: tuple[int, int, int], classes: int) -> nn.Module:
    """A freshly initialised network for images (n, channels, size, size).

    Raises ValueError for an image that is not square, or that patches do not cover.
    """
    channels, height, width = image
    if height != width:
        raise ValueError(f"vit needs square images, got {height}×{width}")
    if height % config.patch_size:
        raise ValueError(
            f"patch_size must divide the size of the images ({height}), got {config.patch_size}"
        )
    network = VisionTransformer(
        image_size=height,
        patch_size=config.patch_size,
        num_layers=config.layers,
        num_heads=config.heads,
        hidden_dim=config.width,
        mlp_dim=config.mlp_width,
        dropout=config.dropout,
        num_classes=classes,
    )
    if channels != 3:
        network.conv_proj = _patches(channels, config)
    return network


def _patches(channels: int, config: Config) -> nn.Conv2d:
    """torchvision's first layer, which is for three channels, and its initial values."""
    layer = nn.Conv2d(channels, config.width, config.patch_size, config.patch_size)
    inputs = channels * config.patch_size**2
    nn.init.trunc_normal_(layer.weight, std=inputs**-0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
