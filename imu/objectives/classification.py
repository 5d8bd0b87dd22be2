"""Images with one label each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.models import head_name
from imu.objectives import Inputs, Samples, mean_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Images with one label each, cross-entropy, influence on the head.

    Inputs are images in [0, 1], or as they are stored: integers, which are divided by ``scale``.
    The network sees (x − mean) / std, on its own device. mean, std: one number, or one per channel.
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    scale: float = 255.0
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"images must be one tensor, got {type(inputs).__name__}")
        device = next(model.parameters(), inputs).device
        logits: Tensor = model(normalised(inputs.to(device), self.scale, self.mean, self.std))
        return logits

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return (head_name(model),)


def normalised(
    images: Tensor,
    scale: float,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> Tensor:
    """What a network sees of images (n, channels, height, width): (x − mean) / std.

    Integers are divided by ``scale`` and become float32. mean, std: one number, or one per channel.
    """
    if not images.is_floating_point():
        images = images.float() / scale
    middle, spread = (
        images.new_tensor(number)[:, None, None] if isinstance(number, tuple) else number
        for number in (mean, std)
    )
    return (images - middle) / spread


def described(data: LabelledImages, network: ModuleType, config: Any) -> dict[str, Any]:
    """Shape and normalisation of the images, and the names of their classes."""
    return {
        "image": list(data.images.shape[1:]),
        "pixels": {"scale": data.scale, "mean": list(data.mean), "std": list(data.std)},
        "classes": list(data.classes),
    }


def built(network: ModuleType, config: Any, about: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = network.build(config, tuple(about["image"]), len(about["classes"]))
    return model


def objective(about: Mapping[str, Any]) -> Classification:
    pixels = about["pixels"]
    return Classification(
        mean=tuple(pixels["mean"]), std=tuple(pixels["std"]), scale=pixels["scale"]
    )


def samples(
    data: LabelledImages,
    rows: list[int],
    about: Mapping[str, Any],
    device: torch.device,
    *,
    perturbed: bool = False,
) -> Samples:
    """Images, uint8 as stored, or in [0, 1] where they are to be perturbed, and labels."""
    images, labels = pixels(data, rows, device)
    return Samples(images.float() / data.scale if perturbed else images, labels)
