"""Language models of ``transformers`` from a folder; tiny ones, which the tests write."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from imu import methods, serving
from imu.datasets import Source, qa_table
from imu.datasets.common.texts import Texts
from imu.influences import layer_influence, parameter_influence
from imu.methods.common.block import last_block
from imu.methods.imu_published import published
from imu.models import causal_lm, gpt_small, has_head, head, head_name
from imu.models.common.attention import attention
from imu.models.common.lora import Adapted
from imu.models.common.tokens import Tokens
from imu.objectives import Samples, language
from imu.objectives.language import Language
from tasks import evaluate, influence, report, retrain, split, train, unlearn
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, load_model
from tasks.tracking.serving import pack
from tests import oracles
from tests.conftest import REPOSITORY
from tests.problems import DAMPING, expected, farness, picked

try:
    import transformers
except ModuleNotFoundError:
    transformers = None
pytestmark = pytest.mark.skipif(transformers is None, reason="needs transformers")

PROMPTS = ["Where was Ada born?", "What is Bo?", "Where does Cy live?", "Who is Di?"]
ANSWERS = ["in Lisbon", "a baker", "in Malmö", "Di is a sailor."]
SIZES = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}
KINDS = pytest.mark.parametrize("kind", SIZES)
ATTENTION = {
    "llama": ("network.model.layers.0.self_attn", "network.model.layers.1.self_attn"),
    "gpt2": ("network.transformer.h.0.attn", "network.transformer.h.1.attn"),
    "gpt_neox": ("network.gpt_neox.layers.0.attention", "network.gpt_neox.layers.1.attention"),
}
FLOAT32 = 1e-6  # their norms and rotary positions are computed in it, whatever the weights are
CONFIG = causal_lm.Config(path="own/tiny", context=40)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(kind: str = "llama", **changes: object) -> Path:
    """A folder with random weights, as ``save_pretrained`` leaves it."""
    tokens = Tokens.trained([*PROMPTS, *ANSWERS], 300)
    special = {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0}
    sizes = SIZES[kind] | {"vocab_size": tokens.size + 3} | special | changes
    torch.manual_seed(5)
    folder = Path("own/tiny")
    asked = transformers.AutoConfig.for_model(kind, **sizes)
    transformers.AutoModelForCausalLM.from_config(asked).save_pretrained(folder)
    # A tokenizer that cuts would lose what is to be forgotten.
    stored = json.loads(tokens.to_json())["tokenizer"]
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(stored | {"truncation": cut}))
    return folder


def made(config: causal_lm.Config = CONFIG) -> tuple[nn.Module, Tokens]:
    torch.manual_seed(0)
    tokens = causal_lm.tokens(config, [])
    return causal_lm.pretrained(config, tokens.size).eval(), tokens


def asked(tokens: Tokens) -> Samples:
    return Samples(*tokens.encode(PROMPTS, ANSWERS, longest=40))


def described(config: causal_lm.Config, tokens: Tokens) -> dict[str, object]:
    about = {"objective": "language", "network": "causal_lm", "config": asdict(config)}
    return about | {"tokens": tokens.to_json(), "classes": ["text"]} | causal_lm.described(config)


@KINDS
def test_it_says_what_transformers_says(kind: str) -> None:
    folder = written(kind)
    model, tokens = made()
    rows = asked(tokens).inputs
    assert (tokens.start, tokens.end, tokens.pad) == (1, 2, 0)
    assert rows.shape[1] > 5
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        right, found = theirs(input_ids=rows).logits, model(rows)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)  # of another form of attention
    assert found.shape[-1] == tokens.size + 3


@KINDS
def test_the_head_is_one_of_its_own_unless_it_is_to_be_shared(kind: str) -> None:
    folder = written(kind, tie_word_embeddings=True)
    model, tokens = made()
    rows = asked(tokens).inputs
    table = next(part for part in model.modules() if isinstance(part, nn.Embedding))
    assert torch.equal(head(model).weight, table.weight)
    assert head(model).weight is not table.weight
    assert head(model).bias is not None
    assert not head(model).bias.any()
    shared, _ = made(replace(CONFIG, own_head=False))
    assert not has_head(shared)
    with pytest.raises(ValueError, match="shares its weight"):
        head_name(shared)
    with torch.no_grad():
        torch.testing.assert_close(model(rows), shared(rows))
    assert folder.exists()


@KINDS
@pytest.mark.parametrize("own_head", [True, False])
def test_what_is_stored_is_whole_and_answers_without_the_folder(
    kind: str, own_head: bool, tmp_path: Path
) -> None:
    folder = written(kind, tie_word_embeddings=True)
    config = replace(CONFIG, own_head=own_head, lora=2)
    model, tokens = made(config)
    for part in model.modules():
        if isinstance(part, Adapted):
            nn.init.normal_(part.up.weight, std=0.1)
    about = described(config, tokens)
    artifacts.write_tensors(tmp_path / "model.safetensors", model.state_dict(), about)
    for path in folder.iterdir():
        path.unlink()
    rows = asked(tokens).inputs
    found, _ = load_model(tmp_path / "model.safetensors")
    served = serving.load(tmp_path / "model.safetensors")
    with torch.no_grad():
        right = model(rows)
        assert torch.equal(found.eval()(rows), right)
        assert torch.equal(served.network(rows), right)
    assert len(served.predict(PROMPTS)) == len(PROMPTS)
    names = {name for name, part in model.named_parameters() if part.requires_grad}
    assert names == {name for name, part in found.named_parameters() if part.requires_grad}


def test_a_table_is_stored_once_where_the_head_shares_it(tmp_path: Path) -> None:
    written(tie_word_embeddings=True)
    sizes = []
    for own_head in (True, False):
        config = replace(CONFIG, own_head=own_head)
        model, tokens = made(config)
        path = tmp_path / f"{own_head}.safetensors"
        artifacts.write_tensors(path, model.state_dict(), described(config, tokens))
        sizes.append(path.stat().st_size)
    vocabulary = tokens.size + 3
    assert sizes[0] - sizes[1] >= 4 * vocabulary * 16


def test_a_packed_model_asks_for_transformers(tmp_path: Path) -> None:
    written()
    pack(tmp_path, tmp_path, described(CONFIG, made()[1]), "model.safetensors")
    assert "transformers==" in (tmp_path / "requirements.txt").read_text()


def test_low_rank_adaptation_trains_what_is_beside_and_starts_as_the_folder() -> None:
    written()
    plain, tokens = made()
    model, _ = made(replace(CONFIG, lora=2))
    rows = asked(tokens).inputs
    assert torch.equal(model(rows), plain(rows))
    trained = {name for name, part in model.named_parameters() if part.requires_grad}
    assert len(trained) == 2 * 2 * 7  # two matrices, two blocks, seven linear layers
    assert all(name.endswith(("down.weight", "up.weight")) for name in trained)
    model(rows).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    layer = next(part for part in model.modules() if isinstance(part, Adapted))
    nn.init.normal_(layer.up.weight)
    x = torch.rand(3, 16)
    whole = layer.base.weight + 2 * layer.up.weight @ layer.down.weight
    torch.testing.assert_close(layer(x), x @ whole.T)


@pytest.mark.parametrize("changes", [{"checkpointing": True}, {"precision": "bfloat16"}])
def test_memory_is_saved_without_other_gradients(changes: dict[str, object]) -> None:
    written()
    plain, tokens = made()
    model, _ = made(replace(CONFIG, **changes))
    task, samples = Language(tokens=tokens), asked(tokens)
    calls: list[int] = []
    for network in (plain, model):
        network.train()
        block = network.network.model.layers[0].input_layernorm
        block.register_forward_hook(lambda part, *_: calls.append(id(part)))
        task.losses(task.logits(network, samples.inputs), samples.targets).mean().backward()
    assert list(Counter(calls).values()) == [1, 2 if "checkpointing" in changes else 1]
    low = changes.get("precision") == "bfloat16"
    assert all(p.dtype == (torch.bfloat16 if low else torch.float32) for p in model.parameters())
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert other.grad is not None
        apart = (one.grad - other.grad).norm()
        # Of bfloat16: 8 bits through two blocks.
        assert apart <= (0.1 if low else 1e-6) * one.grad.norm() + 1e-6


@KINDS
@pytest.mark.parametrize("lora", [0, 2])
def test_attention_and_the_last_block_are_found_by_structure(kind: str, lora: int) -> None:
    written(kind)
    model, tokens = made(replace(CONFIG, lora=lora))
    samples, task = asked(tokens), Language(tokens=tokens)
    assert attention(model, lambda: model(samples.inputs), 3) == ATTENTION[kind]
    assert attention(model, lambda: model(samples.inputs), 1) == ATTENTION[kind][1:]
    assert published(model, task, samples[:1]) == ATTENTION[kind]
    assert last_block(model)[0] == ATTENTION[kind][1].rpartition(".")[0]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_attention_written_into_a_block_is_that_block() -> None:
    model = gpt_small.build(gpt_small.Config(width=8, layers=3, heads=2, hidden=8), 300)
    rows = torch.arange(6).view(2, 3)
    assert attention(model, lambda: model(rows), 2) == ("blocks.1", "blocks.2")


@KINDS
@pytest.mark.parametrize("score", ["mean", "self"])
def test_influence_is_that_of_one_backward_pass_per_sample(kind: str, score: str) -> None:
    written(kind)
    model, tokens = made()
    model, task, samples = model.double(), Language(tokens=tokens), asked(tokens)
    where = (*ATTENTION[kind][1:], head_name(model))
    gradients = oracles.gradients(model, task, samples, picked(model, where))
    choices = {"parameters": where, "damping": DAMPING, "score": score, "chunk": 3}
    for form in (layer_influence, parameter_influence):
        found = form(model, task, samples, **choices).scores
        assert farness(found, expected(gradients, "diagonal", score)) < FLOAT32
        assert farness(found, expected(gradients, "identity", score)) > 1e-3


def test_a_llama_is_scored_by_products_norms_and_embedding_included() -> None:
    written()
    model, tokens = made()
    model, task, samples = model.double(), Language(tokens=tokens), asked(tokens)
    gradients = oracles.gradients(model, task, samples, list(model.parameters()))
    found = layer_influence(model, task, samples, parameters=[""], damping=DAMPING, chunk=2)
    assert farness(found.scores, expected(gradients, "diagonal", "mean")) < FLOAT32


@pytest.mark.parametrize("name", ["imu_published", "imu_deep", "token_mask", "npo"])
def test_methods_take_it_as_it_is(name: str) -> None:
    written()
    model, tokens = made()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    task, samples = Language(tokens=tokens), asked(tokens)
    kind = methods.variants(name)[name]
    if hasattr(kind, "sgd"):
        kind = replace(kind, sgd=replace(kind.sgd, epochs=1, batch_size=2))
    if hasattr(kind, "epochs"):
        kind = replace(kind, epochs=1, attack_steps=1)
    forget = methods.ForgetSet(samples=samples[:2], classes=(), target_margin=-1e9)
    available = {
        "forget": lambda: forget,
        "influence": lambda: torch.ones(2),
        "retain": lambda: samples[2:],
    }
    list(methods.run(name, model, task, kind, seed=0, available=available))
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved
    if name == "imu_published":
        assert all(key.startswith(ATTENTION["llama"]) for key in moved)


def texts() -> Texts:
    import numpy as np

    n = len(PROMPTS)
    empty = np.array([""] * n)
    return Texts(
        prompts=np.array(PROMPTS),
        answers=np.array(ANSWERS),
        ids=np.array([f"{i}" for i in range(n)]),
        other_prompts=empty,
        other_answers=empty,
        wrong=((),) * n,
        attributes={"subject": np.array(["a", "b", "c", "d"])},
    )


def test_training_begins_from_the_folder_and_its_change_is_known() -> None:
    folder = written()
    about = language.described(texts(), causal_lm, CONFIG)
    one, other = (language.begun(causal_lm, CONFIG, about) for _ in range(2))
    drawn = language.built(causal_lm, CONFIG, about)
    rows = asked(Tokens.from_json(about["tokens"])).inputs
    assert torch.equal(one.eval()(rows), other.eval()(rows))
    assert not torch.allclose(one(rows), drawn.eval()(rows))
    first = about["pretrained"]["sha256"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    assert language.described(texts(), causal_lm, CONFIG)["pretrained"]["sha256"] != first


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_named(missing: str) -> None:
    folder = written()
    (folder / missing).unlink()
    pattern = "safetensors" if missing.startswith("model") else missing
    with pytest.raises(FileNotFoundError, match=rf"there is no \S*{pattern} in own/tiny"):
        causal_lm.pretrained(CONFIG, 100)


def test_a_pickle_is_not_read() -> None:
    folder = written()
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        causal_lm.pretrained(CONFIG, 100)


def indexed(name: object, file: str = "some.safetensors") -> Path:
    """A folder whose index says that every weight lies in ``name``."""
    folder = written()
    (folder / "model.safetensors").rename(folder / file)
    weights = load_file(folder / file)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_weights_in_several_files_are_read_as_the_index_says() -> None:
    folder = indexed("some.safetensors")
    weights = load_file(folder / "some.safetensors")
    changed = {name: of + 1 for name, of in weights.items()}
    save_file(changed, folder / "other.safetensors", metadata={"format": "pt"})
    model, tokens = made()
    first = causal_lm.digest(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("some.safetensors", "other.safetensors"))
    assert causal_lm.digest(folder) != first
    rows = asked(tokens).inputs
    assert not torch.allclose(made()[0](rows), model(rows))


@pytest.mark.parametrize(
    "name",
    [
        "../outside/some.safetensors",
        "/some.safetensors",
        "link.safetensors",
        "below/some.safetensors",
        "w.bin",
        "..",
        "",
        3,
    ],
)
def test_an_index_names_only_safetensors_of_the_folder(name: object) -> None:
    folder = indexed(name)
    weights = load_file(folder / "some.safetensors")
    torch.save(weights, folder / "w.bin")
    for outside in (Path("own/outside"), folder / "below"):
        outside.mkdir()
        save_file(weights, outside / "some.safetensors", metadata={"format": "pt"})
    (folder / "link.safetensors").symlink_to(Path("own/outside/some.safetensors").resolve())
    with pytest.raises(ValueError, match=r"index\.json names .*only \*\.safetensors that lie in"):
        made()


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', "[]", "{"])
def test_an_index_that_is_none_is_refused(index: str) -> None:
    folder = indexed("some.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"index\.json (has no weight_map|must hold|is not read)"):
        made()


def test_the_files_of_a_linked_folder_are_its_own() -> None:
    folder = indexed("some.safetensors")
    folder.rename("elsewhere")
    folder.symlink_to(Path("elsewhere").resolve())
    made()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "x.Y"}}, "code of its own"),
        ({"_attn_implementation": "some/kernels"}, "attention 'some/kernels' of a package"),
        ({"_attn_implementation": {"": "flash_attention_2"}}, "attention 'flash_attention_2'"),
        ({"x": {"_attn_implementation": ["y"]}}, r"attention \['y'\] of a package"),
        ({"transformers_weights": "x.safetensors.index.json"}, "names a file of weights"),
        ({"model_type": "no_such"}, "no causal language model 'no_such'"),
        ({"num_hidden_layers": 3}, "not those of its config.json: missing keys"),
        ({"num_hidden_layers": 1}, "unexpected keys"),
        ({"max_position_embeddings": 20}, "context must be <= 20"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    folder = written()
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        causal_lm.pretrained(CONFIG, 100)


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused() -> None:
    written()
    with pytest.raises(ValueError, match="the tokenizer has 999 tokens"):
        causal_lm.pretrained(CONFIG, 999)


def test_special_tokens_must_be_told() -> None:
    folder = written()
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    gone = {key: of for key, of in config.items() if key != "eos_token_id"}
    (folder / "config.json").write_text(json.dumps(gone))
    with pytest.raises(ValueError, match="has no eos_token_id"):
        causal_lm.tokens(CONFIG, [])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("path", "elsewhere/model", "path must be a folder in own/"),
        ("path", "own/../x", "path must be a folder in own/"),
        ("path", "own", "path must be a folder in own/"),
        ("context", 1, "context must be >= 2, got 1"),
        ("precision", "float16", "precision must be 'float32' or 'bfloat16', got 'float16'"),
        ("lora", -1, r"lora must be in \[0, 65536\], got -1"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **{field: value})


def test_the_shipped_settings_go_through_every_stage(tmp_path: Path) -> None:
    """Those of settings/smollm2.yaml, with a tiny network in the folder."""
    settings = params.read_file(REPOSITORY / "settings" / "smollm2.yaml", "", "")
    chosen = params.changed(params.read(REPOSITORY), settings)
    written().rename("own/smollm2")
    (tmp_path / "params.yaml").write_text(json.dumps(chosen))  # JSON is YAML
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "forgotten.csv").write_text("id\n")
    workspace = Workspace(tmp_path)
    (tmp_path / "settings").mkdir()
    path = chosen["data"]["path"]
    (tmp_path / path).write_text((REPOSITORY / path).read_text())
    qa_table.write(tmp_path / "data" / "qa_table", Source(path=path))
    split.run(workspace, None)
    train.run(workspace, None)
    retrain.run(workspace, "reference")
    influence.run(workspace, None)
    for item in chosen["unlearn"]:
        unlearn.run(workspace, item)
    evaluate.run(workspace, "retrain/reference")
    for item in chosen["unlearn"]:
        evaluate.run(workspace, f"unlearn/{item}")
    report.run(workspace, None)
    verdicts = json.loads((tmp_path / "runs" / "report" / "verdicts.json").read_text())
    assert verdicts.keys() >= chosen["unlearn"].keys()
    said = artifacts.read_about(workspace.model("unlearn/imu_published"))
    assert said["pretrained"]["sha256"] == causal_lm.digest(Path("own/smollm2"))
    moved, _ = artifacts.read_tensors(
        workspace.model("unlearn/imu_published").with_name("trajectory.safetensors")
    )
    parts = {name.partition("/")[2] for name in moved}
    assert parts
    assert all(name.startswith(ATTENTION["llama"]) for name in parts)
