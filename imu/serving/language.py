"""Answers to questions: the most probable token, again and again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imu.serving import network

LONGEST = 32  # tokens of an answer


class Model:
    """The network, as ``network``, and what it takes and gives."""

    def __init__(self, path: Path):
        from imu.objectives.language import objective

        self.network, about = network(path)
        self.objective = objective(about)
        self.context: int = about["config"]["context"]

    def predict(self, prompts: Iterable[Any], params: dict[str, Any] | None = None) -> list[str]:
        """An answer to each prompt: a list of str, or a table with the column "prompt".

        Raises ValueError, naming it, where a prompt leaves no room for an answer, and TypeError for
        a prompt that is not in a list.
        """
        import torch

        from imu.metrics._passes import greedy

        if isinstance(prompts, str):
            raise TypeError(f"prompts must be a list of texts, got the text {prompts!r}")
        tokens = self.objective.tokens
        asked = [str(prompt) for prompt in getattr(prompts, "prompt", prompts)]
        inputs, targets = tokens.encode(asked, ["."] * len(asked), longest=self.context)
        given = [
            row[: int((t >= 0).nonzero()[0]) + 1].tolist()
            for row, t in zip(inputs, targets, strict=True)
        ]
        guesses = [[tokens.end] * min(LONGEST, self.context - len(row)) for row in given]
        with torch.inference_mode():
            found = greedy(self.network, self.objective, given, guesses, tokens.end)
        return [tokens.decode(answer) for answer in found]


def packages(about: Mapping[str, Any]) -> tuple[str, ...]:
    return ("tokenizers", *(["transformers"] if about["network"] == "causal_lm" else []))


def signature(about: Mapping[str, Any]) -> dict[str, str]:
    text = {"type": "string", "required": True}
    return {
        "inputs": json.dumps([text | {"name": "prompt"}]),
        "outputs": json.dumps([text | {"name": "answer"}]),
    }
