"""Networks, samples and oracles that the tests of influence share."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.influences import head_influence, parameter_influence
from imu.models import resnet_small
from imu.objectives import IGNORED, Samples, mean_cross_entropy
from imu.objectives.classification import Classification
from tests import oracles

DAMPING = 0.01
# Rounding of a few hundred additions.
TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]
FORMS = [(fisher, score) for fisher in ("diagonal", "full") for score in ("mean", "self")]


def problem(n: int = 23, d: int = 7, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(n, d, generator=draw, dtype=torch.float64)
    weight = torch.randn(classes, d, generator=draw, dtype=torch.float64)
    bias = torch.randn(classes, generator=draw, dtype=torch.float64)
    return features, weight, bias, torch.randint(0, classes, (n,), generator=draw)


def closed_form(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, **choices):
    logits = features @ weight.T + bias
    return head_influence(features, logits, labels, damping=DAMPING, **choices)


def expected(gradients: Tensor, fisher: str, score: str, mean: Tensor | None = None) -> Tensor:
    """The oracle of one form; fisher "identity" is the wrong one that must be told apart."""
    mean = oracles.mean_gradient(gradients) if mean is None else mean
    if fisher == "full":
        curvature = oracles.fisher_full(gradients)
        towards = mean if score == "mean" else None
        return oracles.influence_full(gradients, curvature, DAMPING, towards)
    curvature = oracles.fisher_diagonal(gradients)
    if fisher == "identity":
        curvature = torch.ones_like(curvature)
    if score == "self":
        return oracles.self_influence(gradients, curvature, DAMPING)
    return oracles.influence(gradients, mean, curvature, DAMPING)


def farness(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest score: elementwise, a score near 0 says nothing."""
    return float(((found.double() - expected).abs().max() / expected.abs().max()).detach())


class Tokens(nn.Module):
    """Two layers per token, then a prediction per token."""

    def __init__(self, vocabulary: int = 11, width: int = 5, classes: int = 4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.hidden = nn.Sequential(nn.Linear(width, 6), nn.ReLU())
        self.inner = nn.Linear(6, 3)
        self.head = nn.Linear(3, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.inner(self.hidden(self.embedding(tokens))).tanh())  # (n, t, classes)


class Attention(nn.Module):
    """An embedding and one block of causal attention, as in a language model."""

    def __init__(self, vocabulary: int = 11, width: int = 6, classes: int = 4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (n, t, width)
        h = self.norm(x)
        heads = [layer(h).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k)]
        values = self.v(h).unflatten(-1, (2, -1)).transpose(1, 2)  # (n, 2, t, width / 2)
        mixed = F.scaled_dot_product_attention(*heads, values, is_causal=True)
        return self.head(x + self.o(mixed.transpose(1, 2).flatten(2)))  # (n, t, classes)


class Encoder(nn.Module):
    """torch's own transformer, whose fused kernels in evaluation mode have no derivative."""

    def __init__(self, vocabulary: int = 11, width: int = 4, classes: int = 4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, 2, 6, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(tokens)))  # (n, t, classes)


@dataclass(frozen=True)
class Sequences:
    """One class per token; influence on an inner layer."""

    where: tuple[str, ...] = ("inner",)
    bounds: None = None

    def logits(self, model: nn.Module, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        return model(inputs["tokens"])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return self.where


class Inplace(nn.Module):
    """What is recorded is changed in place, and one module is called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.norm(self.stem(images)))  # (n, 3, 6, 6)
        maps *= 2
        shifted = self.relu(maps - 0.5)
        return self.head((shifted + maps + self.block(maps).tanh()).mean((2, 3)))  # (n, classes)


class Shared(nn.Module):
    """A convolution called twice, one weight of two layers, and a head with two names.

    The second name stands where the block before a head is looked for.
    """

    def __init__(self, classes: int = 3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.conv.weight
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
        )
        self.fc = self.classifier[2]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(self.stem(images).relu()).relu()
        return self.classifier(self.other(self.conv(maps).relu()).relu())


IMAGES, SEQUENCES = Classification(mean=0.3, std=0.5), Sequences()


def task(name: str, dtype: torch.dtype = torch.float64, n: int = 7):
    """A network with lived-in BatchNorm statistics, its objective and samples."""
    torch.manual_seed(5)
    if name in ("resnet", "inplace"):
        model: nn.Module = resnet_small.build(resnet_small.Config(width=2), (1, 8, 8), 4)
        model = model if name == "resnet" else Inplace()
        model(2 * torch.rand(40, 1, 8, 8))
        samples = Samples(torch.rand(n, 1, 8, 8, dtype=dtype), torch.randint(0, 4, (n,)))
        return model.to(dtype), IMAGES, samples
    model = {"tokens": Tokens, "attention": Attention, "encoder": Encoder}[name]()
    targets = torch.randint(0, 4, (n, 6))
    targets[torch.arange(6) >= torch.randint(2, 7, (n, 1))] = IGNORED
    samples = Samples({"tokens": torch.randint(0, 11, (n, 6))}, targets)
    return model.to(dtype), SEQUENCES, samples


def general(name: str, where, **choices):
    model, objective, samples = task(name)
    choices = {"damping": DAMPING, "chunk": 3} | choices
    return parameter_influence(model, objective, samples, parameters=where, **choices)


def reference(name: str, where, fisher: str = "diagonal", score: str = "mean", n: int = 7):
    """The oracle, for the parameters whose names begin with one of ``where``."""
    model, objective, samples = task(name, n=n)
    gradients = oracles.gradients(model, objective, samples, picked(model, where))
    return expected(gradients, fisher, score)


def picked(model: nn.Module, where) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.startswith(tuple(where))]


# Network, parameters.
CASES = {
    "head": ("resnet", ["head"]),
    "last block and head": ("resnet", ["blocks.2", "head"]),
    "first block": ("resnet", ["blocks.0"]),
    "one parameter": ("resnet", ["blocks.1.conv2.weight"]),
    "all parameters": ("resnet", [""]),
    "changed in place, called twice": ("inplace", ["block"]),
    "inner layer of a sequence": ("tokens", ["inner"]),
    "embedding": ("tokens", ["embedding"]),
    "all parameters of a sequence": ("tokens", [""]),
    "attention projections": ("attention", ["q", "k", "v", "o"]),
    "torch's attention": ("encoder", ["layers.layers.1.self_attn"]),
    "torch's feed-forward layer": ("encoder", ["layers.layers.1.linear1"]),
}
each_case = pytest.mark.parametrize(("name", "where"), CASES.values(), ids=CASES)
