"""Questions with answers, and documents: the next token at every position of the answer.

A sample is a sequence of tokens, its loss the mean negative log-likelihood of the tokens of its
answer and of the end. Tokens are padded on the right, and a causal network looks to the left alone:
no attention mask is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imu.datasets.common.texts import Texts
from imu.models import head_name
from imu.models.common.tokens import Tokens
from imu.objectives import Inputs, Samples, mean_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Language:
    """A causal language model: tokens (n, positions) in, logits (n, positions, tokens) out."""

    tokens: Tokens
    bounds: None = None  # token numbers cannot be perturbed

    def logits(self, model: nn.Module, inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"tokens must be one tensor, got {type(inputs).__name__}")
        device = next(model.parameters(), inputs).device
        logits: Tensor = model(inputs.to(device))
        return logits

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(logits, targets)

    def influence_parameters(self, model: nn.Module) -> tuple[str, ...]:
        return (head_name(model),)


def described(data: Texts, network: ModuleType, config: Any) -> dict[str, Any]:
    """The tokenizer, which ``network.tokens`` makes of all texts or brings along.

    Of all, those that no model is trained on included: otherwise a name that was trained on would
    be one token and another one several, and that alone would tell who was in the training set.
    """
    tokens = network.tokens(config, map(str, (*data.prompts, *data.answers)))
    _require_room(data, tokens, config.context)
    more = network.described(config) if hasattr(network, "described") else {}
    return {"tokens": tokens.to_json(), "classes": list(data.classes), **more}


def _require_room(data: Texts, tokens: Tokens, context: int) -> None:
    """Raises ValueError, naming the sample, where something that will be asked is too long."""
    for row, (prompt, answer) in enumerate(zip(data.prompts, data.answers, strict=True)):
        asked = [(prompt, reply) for reply in (answer, data.other_answers[row], *data.wrong[row])]
        pairs = [*asked, (data.other_prompts[row], answer)]
        # A byte is a token at most, so that short texts need not be encoded.
        doubtful = [pair for pair in pairs if len(" ".join(pair).encode()) + 2 > context]
        for question, reply in doubtful:
            try:
                tokens.encode([str(question)], [str(reply)], longest=context)
            except ValueError as error:
                raise ValueError(
                    f"{str(data.ids[row])!r} is too long for network.context, {context}: {error}"
                ) from error


def built(network: ModuleType, config: Any, about: Mapping[str, Any]) -> nn.Module:
    known = {name: about[name] for name in ("architecture",) if name in about}
    model: nn.Module = network.build(config, Tokens.from_json(about["tokens"]).size, **known)
    return model


def begun(network: ModuleType, config: Any, about: Mapping[str, Any]) -> nn.Module:
    """A network as training finds it: new, or with the weights that were trained elsewhere."""
    if not hasattr(network, "pretrained"):
        return built(network, config, about)
    model: nn.Module = network.pretrained(config, Tokens.from_json(about["tokens"]).size)
    return model


def objective(about: Mapping[str, Any]) -> Language:
    return Language(tokens=Tokens.from_json(about["tokens"]))


def samples(
    data: Texts,
    rows: list[int],
    about: Mapping[str, Any],
    device: torch.device,
    *,
    perturbed: bool = False,
) -> Samples:
    """Tokens (n, positions), and at each position the token that follows, if it is answered."""
    tokens = Tokens.from_json(about["tokens"])
    inputs, targets = tokens.encode(
        data.prompts[rows].tolist(), data.answers[rows].tolist(), longest=about["config"]["context"]
    )
    return Samples(inputs.to(device), targets.to(device))
