"""Person re-identification: trained as a classifier of people, used to find images of one again.

What is used are the features, which enter the head: of two images the cosine between them says how
alike their people are. So the head, which tells the people trained on apart, has no part in the
use, and a mask on its outputs hides nobody. Methods see the classifier, as those of Sun et al. 2018
(arXiv 1711.09349) and the paper on IMU (arXiv 2508.01620) do, whose person re-identification
forgets in it.

Networks and the objective itself are those of classification.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from imu.datasets import LabelledImages
from imu.datasets.common.people import trained_on
from imu.objectives import Samples, classification
from imu.objectives.classification import Classification

NETWORKS = "classification"


def described(data: LabelledImages, network: ModuleType, config: Any) -> dict[str, Any]:
    """As of classification; classes are the people that are trained on, and no others."""
    known = {"classes": list(data.classes[: trained_on(data)])}
    return classification.described(data, network, config) | known


def built(network: ModuleType, config: Any, about: Mapping[str, Any]) -> nn.Module:
    return classification.built(network, config, about)


def objective(about: Mapping[str, Any]) -> Classification:
    return classification.objective(about)


def samples(
    data: LabelledImages,
    rows: list[int],
    about: Mapping[str, Any],
    device: torch.device,
    *,
    perturbed: bool = False,
) -> Samples:
    """Images of people that are trained on, and who they are; nobody else is asked of the head."""
    known = named(data, rows, about)
    return classification.samples(data, known, about, device, perturbed=perturbed)


def named(data: LabelledImages, rows: list[int], about: Mapping[str, Any]) -> list[int]:
    """Those rows that show a person whom the network has an output for."""
    people = len(about["classes"])
    return [row for row in rows if data.labels[row] < people]
