"""A language model of the user's: a causal one of ``transformers``, from a folder.

The folder holds ``config.json``, ``tokenizer.json`` and weights as safetensors. Nothing in it is
run and nothing is fetched. Training begins from these weights, that of the reference as well. What
is stored is whole, so that no stored model needs the folder. Attention is the one that
``transformers`` writes out ("eager"): fused forms have no forward derivative on CPUs. Rows are
filled on the right and attention is causal, so that no mask is needed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imu.bounds import check_fields
from imu.models import find_head, without_head
from imu.models.common.lora import adapt
from imu.models.common.tokens import Tokens

OBJECTIVE = "language"
OWN = "own"  # folder of what the user brings
CONFIG, GENERATION, TOKENIZER, WEIGHTS, INDEX = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "*.safetensors",
    "model.safetensors.index.json",  # which file has which weight, where there are several
)
PLAIN = (None, "eager", "sdpa")  # attention that no other package is asked for
# Which token, by the names that config.json may have for it.
SPECIAL = {
    "start": ("bos_token_id", "eos_token_id"),
    "end": ("eos_token_id",),
    "pad": ("pad_token_id", "eos_token_id"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    path: str  # a folder in own/
    context: int = 256  # tokens of the longest row
    precision: Literal["float32", "bfloat16"] = "float32"  # of the weights
    own_head: bool = True  # a copy of what the head shares with the embedding, and a bias of 0
    checkpointing: bool = False  # blocks run again in backward passes of training: less memory
    lora: int = 0  # rank of what is trained beside each frozen linear layer; 0: all is trained

    def __post_init__(self) -> None:
        parts = Path(self.path).parts
        if len(parts) < 2 or parts[0] != OWN or ".." in parts:
            raise ValueError(f"path must be a folder in {OWN}/, got {self.path!r}")
        check_fields(self, context=">= 2", lora="in [0, 65536]")


def tokens(config: Config, texts: Iterable[str]) -> Tokens:
    """The tokenizer that the weights were trained with; ``texts`` change nothing."""
    return read_tokens(Path(config.path))


def described(config: Config) -> dict[str, Any]:
    """What a stored model must know of the folder, and which folder that was."""
    folder = Path(config.path)
    return {
        "architecture": architecture(folder),
        "pretrained": {"path": config.path, "sha256": digest(folder)},
    }


def build(config: Config, vocabulary: int, architecture: dict[str, Any]) -> nn.Module:
    """A network as ``architecture`` describes, weights drawn: tokens (n, t) to logits (n, t, v).

    vocabulary: size of the tokenizer; the network may have more tokens.

    Raises ValueError where it has too few tokens or positions.
    """
    return _made(config, vocabulary, _drawn(config, architecture))


def pretrained(config: Config, vocabulary: int, folder: Path | None = None) -> nn.Module:
    """The same with the weights of the folder, which training begins from.

    folder: in place of ``config.path``. Raises ValueError, FileNotFoundError and what ``build``
    raises where the folder does not hold such a network, whole.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = Path(config.path) if folder is None else folder
    asked = architecture(folder)
    _require_inside(folder)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, config.precision),
        attn_implementation="eager",
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    given, report = loaded
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found := sorted(map(str, report[what])):
            raise ValueError(
                f"the weights in {folder} are not those of its {CONFIG}: "
                f"{what.replace('_', ' ')} {', '.join(found[:5])}"
            )
    # What is no weight, as rotary positions, is then made as in a stored model that is read.
    network = _drawn(config, asked)
    network.load_state_dict(given.state_dict())
    return _made(config, vocabulary, network)


def architecture(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises FileNotFoundError, naming it, where a file is missing, and ValueError where the network
    is a program of its own, which is not run, or asks for other files or packages.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not any(folder.glob(name)):
            raise FileNotFoundError(
                f"there is no {name} in {folder}: a causal language model of transformers is "
                f"{CONFIG}, {TOKENIZER} and {WEIGHTS}, as save_pretrained writes them"
            )
    found: dict[str, Any] = _json(folder / CONFIG)
    if "auto_map" in found:
        raise ValueError(
            f"{folder / CONFIG} names code of its own (auto_map), which is not run: where "
            "transformers has the network itself, take auto_map out"
        )
    if found.get("transformers_weights") is not None:
        raise ValueError(
            f"{folder / CONFIG} names a file of weights (transformers_weights): take that out, "
            f"and name the file model.safetensors, or those of several in {INDEX}"
        )
    for kind in _attention(found):
        if kind not in PLAIN:
            raise ValueError(
                f"{folder / CONFIG} asks for the attention {kind!r} of a package "
                "(_attn_implementation): take that out, it is not used here"
            )
    if found.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"{folder / CONFIG}: transformers has no causal language model "
            f"{found.get('model_type')!r}"
        )
    return found


def read_tokens(folder: Path) -> Tokens:
    """The tokenizer of a folder. Raises ValueError where a special token is not told."""
    known: dict[str, Any] = {}
    for name in (GENERATION, CONFIG):
        if (folder / name).is_file():
            known |= {key: of for key, of in _json(folder / name).items() if of is not None}
    special = {}
    for token, names in SPECIAL.items():
        found = next((known[name] for name in names if name in known), None)
        if isinstance(found, list):  # several end an answer; it is taught one
            found = found[0]
        if found is None:
            raise ValueError(f"{folder / CONFIG} has no {' or '.join(names)}")
        special[token] = found
    stored = {"tokenizer": _json(folder / TOKENIZER) | {"truncation": None, "padding": None}}
    return Tokens.from_json(json.dumps(stored | special))


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of the files that are read."""
    found = hashlib.sha256()
    for pattern in (CONFIG, GENERATION, TOKENIZER, WEIGHTS, INDEX):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


class CausalLM(nn.Module):
    """Tokens in, logits out, as every network for texts here."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.network(input_ids=tokens, use_cache=False).logits
        return logits


def _require_inside(folder: Path) -> None:
    """Raises ValueError where the index names what is no file of safetensors in the folder."""
    if not (folder / INDEX).exists():
        return
    named = _json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict):
        raise ValueError(f"{folder / INDEX} has no weight_map")
    for name in named.values():
        plain = isinstance(name, str) and name == Path(name).name and Path(name).match(WEIGHTS)
        if not plain or (folder / name).resolve().parent != folder.resolve():
            raise ValueError(
                f"{folder / INDEX} names {name!r}, and only {WEIGHTS} that lie in {folder} are read"
            )


def _attention(config: dict[str, Any]) -> Iterator[Any]:
    """The kinds that ``config.json`` asks for, in its parts as well."""
    for key, value in config.items():
        if key == "_attn_implementation":
            yield from value.values() if isinstance(value, dict) else (value,)
        elif isinstance(value, dict):
            yield from _attention(value)


def _drawn(config: Config, architecture: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    asked = AutoConfig.for_model(**architecture)
    return AutoModelForCausalLM.from_config(
        asked, dtype=getattr(torch, config.precision), attn_implementation="eager"
    )


def _made(config: Config, vocabulary: int, network: Any) -> nn.Module:
    _turn(network)
    head = network.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(network).__name__} has no linear head")
    if vocabulary > head.out_features:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens, {type(network).__name__} {head.out_features}"
        )
    longest = getattr(network.config, "max_position_embeddings", config.context)
    if config.context > longest:
        raise ValueError(
            f"context must be <= {longest}, the positions of {type(network).__name__}, "
            f"got {config.context}"
        )
    if config.own_head:
        head = _own(head)
        network.set_output_embeddings(head)
        network.config.tie_word_embeddings = False
    if config.checkpointing:
        network.activation_checkpointing_enable()
    network.config.pad_token_id = None  # GPT-2 looks for it and warns; padding needs no mask here
    model = CausalLM(network)
    if config.lora:
        adapt(network, config.lora, besides=head)
    name = next(name for name, module in model.named_modules() if module is head)
    like = torch.zeros((2, 3), dtype=torch.int64)
    try:
        find_head(model, like, name)
    except ValueError as error:  # raised by what needs a head
        without_head(model, str(error))
    return model


def _turn(network: nn.Module) -> None:
    """Make linear layers of those whose matrices lie the other way, as GPT-2 has them."""
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                inputs, outputs = child.weight.shape
                layer = nn.Linear(inputs, outputs, dtype=child.weight.dtype)
                with torch.no_grad():
                    layer.weight.copy_(child.weight.T)
                    layer.bias.copy_(child.bias)
                setattr(parent, name, layer)


def _own(shared: nn.Linear) -> nn.Linear:
    """The same layer with a weight of its own and with a bias."""
    weight = shared.weight.detach()
    own = nn.Linear(shared.in_features, shared.out_features, dtype=weight.dtype)
    with torch.no_grad():
        own.weight.copy_(weight)
        own.bias.zero_()
        if shared.bias is not None:
            own.bias.copy_(shared.bias)
    return own


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold names and values")
    return found
