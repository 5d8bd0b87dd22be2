"""Text as the numbers that a language model reads, and which of them it is to predict.

A sample is laid out as: start, question, answer. The model reads this row and is asked for the
answer and for the end after it:

    tokens   start  q₁  q₂  a₁  a₂  pad
    targets    −    −   a₁  a₂ end   −          − is IGNORED

Rows are filled on the right. A causal network sees nothing to its right, so that neither the
filling nor a mask changes what it says.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from imu.bounds import require

IGNORED = -100  # a target that no loss counts, as in torch
ALPHABET = 256  # bytes
SPECIAL = ("<pad>", "<start>", "<end>")


class Tokens:
    """A tokenizer, and the tokens that begin, end and fill a row.

    size: of the vocabulary; tokens are below it. Nothing is unpickled and no code is run where one
    is read from JSON.
    """

    def __init__(self, tokenizer: Tokenizer, *, start: int, end: int, pad: int) -> None:
        """Raises ValueError where a special token is none of the vocabulary."""
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # in a text "<end>" is five characters
        self.start, self.end, self.pad = start, end, pad
        self.size: int = tokenizer.get_vocab_size()
        for name in ("start", "end", "pad"):
            if not 0 <= getattr(self, name) < self.size:
                raise ValueError(f"{name} must be in [0, {self.size}), got {getattr(self, name)}")

    @classmethod
    def trained(cls, texts: Iterable[str], size: int) -> "Tokens":
        """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) of ``texts``.

        size: of the vocabulary, at most; few texts have fewer pairs. The same texts give the same
        tokenizer.

        Raises ValueError where size leaves no room for single bytes.
        """
        require("size", size, f">= {ALPHABET + len(SPECIAL)}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        pad, start, end = range(len(SPECIAL))
        return cls(tokenizer, start=start, end=end, pad=pad)

    @classmethod
    @lru_cache(maxsize=4)  # a description is asked for its tokens set by set
    def from_json(cls, text: str) -> "Tokens":
        """What ``to_json`` gave. Raises ValueError where it is something else."""
        try:
            stored = json.loads(text)
            tokenizer = Tokenizer.from_str(json.dumps(stored["tokenizer"]))
            return cls(tokenizer, **{name: int(stored[name]) for name in ("start", "end", "pad")})
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"this is no tokenizer ({type(error).__name__}: {error})") from error

    def to_json(self) -> str:
        special = {"start": self.start, "end": self.end, "pad": self.pad}
        return json.dumps(special | {"tokenizer": json.loads(self._tokenizer.to_str())})

    def encode(
        self, prompts: Sequence[str], answers: Sequence[str], *, longest: int
    ) -> tuple[Tensor, Tensor]:
        """Rows of tokens and, at each position, the token to predict there: (n, t) int64 both.

        prompts: (n,), "" where there is none. answers: (n,); one space joins them to the prompt.
        longest: tokens of a row, at most. t is the length of the longest row.

        Raises ValueError, naming the sample, where a row is longer than that.
        """
        rows, asked = [], []
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            given = [self.start, *self._numbers(prompt)]
            said = self._numbers(f" {answer}" if prompt else answer)
            if len(given) + len(said) > longest:
                raise ValueError(
                    f"sample {number} is {len(given) + len(said)} tokens long, at most {longest} "
                    f"are possible: {_shown(prompt, answer)}"
                )
            rows.append(given + said)
            asked.append([IGNORED] * (len(given) - 1) + [*said, self.end])
        return _filled(rows, self.pad), _filled(asked, IGNORED)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, without special tokens and without spaces at its ends."""
        special = {self.start, self.end, self.pad}
        text: str = self._tokenizer.decode([token for token in tokens if token not in special])
        return text.strip()

    def _numbers(self, text: str) -> list[int]:
        numbers: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return numbers


def _filled(rows: list[list[int]], filling: int) -> Tensor:
    length = max(map(len, rows), default=0)
    filled = [row + [filling] * (length - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.int64).reshape(len(rows), length)


def _shown(prompt: str, answer: str, most: int = 60) -> str:
    text = f"{prompt} {answer}".strip()
    return repr(text if len(text) <= most else f"{text[:most]}…")
