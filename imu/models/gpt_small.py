"""A small causal transformer for text (Radford et al. 2019, GPT-2), from torch's own layers.

Normalisation stands before each layer (Xiong et al. 2020, arXiv 2002.04745), positions are learned
(Vaswani et al. 2017, arXiv 1706.03762), and the head has weights of its own and a bias. Attention
is written out: on short rows it is as fast as torch's fused form, which has no forward derivative
on CPUs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imu.bounds import check_fields
from imu.models.common.tokens import Tokens

OBJECTIVE = "language"
# Standard deviations at the start. With 1, torch's own, facts are learned as fast but with the
# place where they are asked for: of questions in other words fewer are answered.
WORDS, POSITIONS = 0.1, 0.02


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 128  # of what flows through the blocks
    layers: int = 2  # blocks
    heads: int = 4  # of attention; they share the width
    hidden: int = 512  # units between the two linear layers of a block
    vocabulary: int = 2048  # tokens, at most, of the tokenizer that is trained on the texts
    context: int = 64  # tokens of the longest row

    def __post_init__(self) -> None:
        sizes = dict.fromkeys(("width", "hidden", "vocabulary"), "in [1, 65536]")
        sizes |= dict.fromkeys(("layers", "heads"), "in [1, 1024]")
        check_fields(self, **sizes, context="in [2, 65536]")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}), got {self.width}")


def tokens(config: Config, texts: Iterable[str]) -> Tokens:
    """The tokenizer, trained on the texts that the network is trained on."""
    return Tokens.trained(texts, config.vocabulary)


def build(config: Config, vocabulary: int) -> nn.Module:
    """A freshly initialised network: tokens (n, t) int64 to logits (n, t, vocabulary).

    vocabulary: size of the tokenizer, which may have fewer tokens than were asked for.
    """
    return Transformer(config, vocabulary)


class Transformer(nn.Module):
    def __init__(self, config: Config, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, vocabulary)
        nn.init.normal_(self.words.weight, std=WORDS)
        nn.init.normal_(self.positions.weight, std=POSITIONS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises ValueError where rows are longer than the context."""
        length, context = tokens.shape[-1], self.positions.num_embeddings
        if length > context:
            raise ValueError(f"rows must have at most {context} tokens (context), got {length}")
        x = self.words(tokens) + self.positions.weight[:length]  # (n, t, width)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))  # (n, t, vocabulary)
        return logits


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_1 = nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.attended(self.norm_1(x)))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))

    def attended(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.query_key_value(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (n, heads, t, width / heads) each
        weights = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5  # (n, heads, t, t)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = weights.masked_fill(later, float("-inf")).softmax(-1)
        return (weights @ value).transpose(1, 2).reshape(n, length, width)
