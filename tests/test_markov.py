"""Markov chains: data of a known law, what is measured against it, and the graph on them."""

import json
import shutil
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from imu import metrics, serving
from imu.datasets import Source, made_from, markov_chains
from imu.datasets.common.sequences import Chain, Sequences
from imu.methods import ForgetSet, imu_sequences
from imu.metrics import Foretold, Measured, chain_distance, chain_divergence, chain_relearning
from imu.metrics._foretold import by_state, divergences
from imu.models import causal_lm, gpt_small
from imu.objectives import Samples
from imu.objectives import sequences as task
from imu.serving import sequences as serving_sequences
from imu.training import Config
from imu.training.distributed import ALONE
from imu.training.feeds.sequences import feed
from imu.verdicts import CRITERIA
from tasks import evaluate, influence, report, retrain, split, train, unlearn
from tasks.files import artifacts
from tasks.files.workspace import Workspace
from tasks.tracking.record import record
from tasks.tracking.serving import pack
from tests.conftest import REPOSITORY, change, keep

CPU = torch.device("cpu")
SMALL = Source(sequences=(60, 30, 30), length=8, seed=3)
NETWORK = {"width": 16, "layers": 1, "heads": 2, "hidden": 16, "vocabulary": 10, "context": 7}
EXACT = 1e-12  # a few additions in float64


def made(folder: Path, source: Source = SMALL) -> Sequences:
    markov_chains.write(folder, source)
    return markov_chains.load(folder)


def law_by_hand(states: int, chains: int, chain: int, leakage: float) -> list[list[float]]:
    each = states // chains
    own = range(chain * each, (chain + 1) * each)
    rows = []
    for current in range(states):
        row = []
        for following in range(states):
            if current not in own:
                row.append(1 / states)
            elif following in own:
                row.append((1 - leakage) / each)
            else:
                row.append(leakage / (states - each))
        rows.append(row)
    return rows


@pytest.mark.parametrize("leakage", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("states", "counts"), [(10, (5, 5, 5)), (7, (9, 1)), (2, (1, 1))])
def test_the_law_of_a_chain(states: int, counts: tuple[int, ...], leakage: float) -> None:
    source = Source(states=states, sequences=counts, leakage=leakage)
    found = markov_chains.chains(source)
    assert list(found) == [f"chain-{n + 1}" for n in range(len(counts))]
    for number, chain in enumerate(found.values()):
        by_hand = np.array(law_by_hand(states, len(counts), number, leakage))
        assert np.abs(chain.law - by_hand).max() < EXACT
        assert np.abs(chain.start - by_hand[number * (states // len(counts))]).max() < EXACT


def test_the_published_setting_is_the_default() -> None:
    source = Source()
    assert (source.states, source.length, source.leakage) == (10, 20, 0.2)
    assert source.sequences == (10_000, 5_000, 5_000)


@pytest.mark.parametrize("leakage", [0.0, 0.2, 1.0])
def test_what_is_drawn_follows_the_law_of_its_chain_and_of_no_other(leakage: float) -> None:
    chains = markov_chains.chains(Source(leakage=leakage))
    chain, other = chains["chain-2"], chains["chain-3"]
    states = markov_chains.walks(chain, np.random.default_rng(0).random((2000, 20)))
    counts = np.zeros((10, 10))
    for row in states:
        for current, following in pairwise(row):
            counts[current, following] += 1
    seen = counts.sum(1) > 0
    shares = counts[seen] / counts[seen].sum(1, keepdims=True)
    bound = 5 / np.sqrt(counts[seen].sum(1).min())  # deviations of a share
    assert np.abs(shares - chain.law[seen]).max() < bound
    assert (counts[:, chain.law[4] == 0][3:6] == 0).all()
    if leakage == 0.2:
        assert np.abs(shares - other.law[seen]).max() > bound
    first = np.bincount(states[:, 0], minlength=10) / 2000
    assert np.abs(first - chain.start).max() < 5 / np.sqrt(2000)


def test_a_number_at_the_edge_of_rounding_gives_a_possible_state() -> None:
    row = np.array([0.0, *[0.1] * 10, 0.0])
    assert row.cumsum()[-1] < 1
    chain = Chain(row, np.tile(row, (12, 1)))
    edges = np.array([[0.0, np.nextafter(1.0, 0.0)]])
    assert markov_chains.walks(chain, edges).tolist() == [[1, 10]]


def test_a_data_set_of_chains_keeps_the_contract(tmp_path: Path) -> None:
    data = made(tmp_path / "a")
    assert data.states.shape == (120, 8)
    assert data.ids[[0, 59, 60]].tolist() == ["chain-1-00000", "chain-1-00059", "chain-2-00000"]
    assert data.labels.tolist() == [0] * 120
    assert (data.objective, data.together, data.classes) == ("sequences", "", ("sequence",))
    assert data.content(2) == " ".join(map(str, data.states[2])).encode()
    assert made_from(tmp_path / "a") == Source(sequences=(60, 30, 30), length=8, seed=3)
    assert "30 of chain-3" in data.summary()
    made(tmp_path / "b")
    for file in ("samples.parquet", "about.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    more = made(tmp_path / "more", Source(sequences=(90, 30, 30), length=8, seed=3))
    assert np.array_equal(more.states[:60], data.states[:60])
    assert np.array_equal(more.states[90:], data.states[60:])
    other = made(tmp_path / "other", Source(sequences=(60, 30, 30), length=8, seed=4))
    assert not np.array_equal(other.states, data.states)
    alike = made(tmp_path / "alike", Source(states=2, sequences=(30, 30), leakage=0.5))
    assert not np.array_equal(alike.states[:30], alike.states[30:])  # though of one law


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"leakage": 1.5}, r"leakage must be in \[0, 1\], got 1.5"),
        ({"leakage": float("nan")}, r"leakage must be in \[0, 1\] and finite, got nan"),
        ({"states": 1}, r"states must be in \[2, 1000\], got 1"),
        ({"length": 1}, r"length must be in \[2, 1000\], got 1"),
        (
            {"sequences": (5,)},
            r"sequences must be a number in \[1, 1000000\] for each of 2 to 10 chains .*\(5,\)",
        ),
        ({"sequences": (5, 0)}, r"sequences must be a number .*got \(5, 0\)"),
        ({"sequences": (1,) * 4, "states": 3}, r"2 to 3 chains \(states\), got \(1, 1, 1, 1\)"),
        ({"sequences": ()}, r"sequences must be a number .*got \(\)"),
    ],
)
def test_chains_that_cannot_be_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(**fields)


def test_sequences_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = made(tmp_path / "a")

    def changed(**fields) -> Sequences:
        own = {n: getattr(data, n) for n in ("states", "ids", "chains", "attributes")}
        return Sequences(**own | fields)

    for fields, message in (
        ({"states": data.states[:5]}, r"states must have shape \(120, 2 or more\), got \(5, 8\)"),
        ({"states": data.states + 9}, r"states must be in \[0, 10\), got 9 to 18"),
        ({"attributes": {}}, r"attributes must have 'subject'"),
        ({"attributes": {"subject": np.array(["x"] * 120)}}, "'x' is none of the chains chain-1"),
        ({"ids": np.array(["a"] * 120)}, "ids must be unique"),
    ):
        with pytest.raises(ValueError, match=message):
            changed(**fields)


def bayes_by_hand(data: Sequences, row: int, shares: dict[str, float]) -> list[list[float]]:
    """By products of probabilities, position by position."""
    states, found = data.states[row].tolist(), []
    for t in range(len(states) - 1):
        weights = {}
        for name, share in shares.items():
            likelihood = data.chains[name].start[states[0]]
            for current, following in pairwise(states[: t + 1]):
                likelihood *= data.chains[name].law[current][following]
            weights[name] = share * likelihood
        if sum(weights.values()) == 0:
            weights = shares
        total = sum(weights.values())
        found.append(
            [
                sum(w / total * data.chains[n].law[states[t]][s] for n, w in weights.items())
                for s in range(data.count)
            ]
        )
    return found


@pytest.mark.parametrize("leakage", [0.0, 0.2])
@pytest.mark.parametrize(
    "shares", [{"chain-1": 3.0}, {"chain-1": 6.0, "chain-3": 3.0}, {"chain-2": 0.5, "chain-3": 0.1}]
)
def test_what_is_known_is_bayes_rule_over_the_chains_that_stay(
    tmp_path: Path, shares: dict[str, float], leakage: float
) -> None:
    data = made(tmp_path / "a", Source(sequences=(4, 4, 4), length=8, leakage=leakage))
    found = data.known(np.arange(12), shares)
    by_hand = np.array([bayes_by_hand(data, row, shares) for row in range(12)])
    assert np.abs(found - by_hand).max() < EXACT
    own = data.own(np.arange(12))
    assert np.array_equal(own[5, 2], data.chains["chain-2"].law[data.states[5, 2]])
    if leakage and len(shares) > 1:  # not the chain itself, whose law one has to infer
        assert np.abs(found - own).max() > 0.01


def foretold(seed: int, names: tuple[str, ...] = ("forget", "retain", "test")) -> Foretold:
    draw, sets = np.random.default_rng(seed), np.random.default_rng(0)

    def random(of: np.random.Generator) -> np.ndarray:
        return of.dirichlet(np.full(4, 0.7), (5, 3))

    shown = {
        field: {name: sets.integers(0, 4, (5, 3)) for name in names}
        for field in ("states", "targets")
    }
    laws = {field: {name: random(sets) for name in names} for field in ("own", "known")}
    return Foretold(
        log_probabilities={name: np.log(random(draw)) for name in names},
        subjects={name: np.array(["c"] * 5) for name in names},
        **shown,
        **laws,
    )


def kl_by_hand(true: np.ndarray, logs: np.ndarray) -> float:
    """Mean over positions, entry by entry."""
    values = []
    for p_of, logs_of in zip(true.reshape(-1, 4), logs.reshape(-1, 4), strict=True):
        values.append(sum(p * (log(p) - q) for p, q in zip(p_of, logs_of, strict=True)))
    return sum(values) / len(values)


def test_divergences_are_those_of_a_loop_and_the_truth_comes_first() -> None:
    said = foretold(1)
    values = chain_divergence.measure(said)
    for name, of, true in (
        ("KL_truth_retain", "retain", said.known),
        ("KL_truth_test", "test", said.known),
        ("KL_truth_forget", "forget", said.known),
        ("KL_forgotten", "forget", said.own),
    ):
        logs = said.log_probabilities[of]
        assert values[name] == pytest.approx(kl_by_hand(true[of], logs), abs=EXACT)
        assert abs(values[name] - kl_by_hand(np.exp(logs), np.log(true[of]))) > 1e-3


def test_an_impossible_state_costs_nothing_where_it_is_foretold_to_be() -> None:
    true, logs = np.array([[[0.5, 0.5, 0.0]]]), np.log([[[0.25, 0.75, 1e-43]]])
    assert divergences(true, logs)[0, 0] == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))


def test_the_distance_by_state_is_that_of_a_loop() -> None:
    one, other = (Measured(outputs=foretold(seed)) for seed in (1, 2))
    values = chain_distance.compare(one, other)
    for name in ("forget", "retain"):
        true = np.exp(other.outputs.log_probabilities[name])
        logs, states = one.outputs.log_probabilities[name], one.outputs.states[name]
        assert values[f"KL_{name}"] == pytest.approx(kl_by_hand(true, logs), abs=EXACT)
        worst = max(kl_by_hand(true[states == s], logs[states == s]) for s in set(states.flat))
        assert values[f"KL_worst_{name}"] == pytest.approx(worst, abs=EXACT)
        assert worst > values[f"KL_{name}"]
    assert max(abs(v) for v in chain_distance.compare(one, one).values()) < EXACT
    weighted = by_state(np.array([[1.0, 2.0], [6.0, 4.0]]), np.array([[0, 1], [1, 1]]))
    assert weighted == {0: 1.0, 1: 4.0}


def test_what_is_lacking_is_named_and_left_out() -> None:
    said = foretold(1, ("retain",))
    assert chain_divergence.measure(said).keys() == {"KL_truth_retain"}
    asked = {"forget": 0, "retain": 5}
    reasons = metrics.absent("sequences", asked)
    assert reasons["KL_truth_test"] == "needs 1 or more test sequences, has 0"
    assert {"KL_forget", "KL_worst_forget", "KL_forgotten", "KL_relearn"} <= reasons.keys()
    assert "KL_truth_retain" not in reasons


def test_the_verdict_asks_of_sequences_what_their_metrics_tell() -> None:
    names = {test.metric for test in CRITERIA} & metrics.about("sequences").keys()
    assert names == metrics.about("sequences").keys() - {"KL_truth_forget"}


def problem(tmp_path: Path, dtype: torch.dtype = torch.float64):
    data = made(tmp_path / "a")
    config = gpt_small.Config(**NETWORK)
    about = task.described(data, gpt_small, config)
    torch.manual_seed(1)
    model = task.built(gpt_small, config, about).to(dtype).eval()
    return data, about, model, task.samples(data, list(range(60, 90)), about, CPU)


@pytest.mark.parametrize(
    ("network", "fields", "message"),
    [
        (gpt_small, {"context": 6}, "network.context must be >= 7, the states of a sequence but"),
        (gpt_small, {"vocabulary": 9}, "network.vocabulary must be >= 10, the different states"),
        (causal_lm, {}, "network.name: causal_lm begins from weights for texts"),
    ],
)
def test_a_network_that_cannot_take_the_sequences_is_refused(
    tmp_path: Path, network, fields: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task.described(made(tmp_path / "a"), network, gpt_small.Config(**NETWORK | fields))


def test_every_state_but_the_first_is_predicted_in_every_epoch(tmp_path: Path) -> None:
    data, about, _, samples = problem(tmp_path)
    assert np.array_equal(samples.inputs, data.states[60:90, :-1])
    assert np.array_equal(samples.targets, data.states[60:90, 1:])
    made_of = feed(data, list(range(40)), about, Config(batch_size=10), CPU, ALONE)
    seen = torch.cat([torch.cat(b, 1) for b in made_of.epoch(torch.Generator().manual_seed(0))])
    whole = torch.from_numpy(np.hstack([data.states[:40, :-1], data.states[:40, 1:]]))
    assert sorted(seen.tolist()) == sorted(whole.tolist())
    assert seen.tolist() != whole.tolist()


def unlearned(tmp_path: Path, **fields) -> tuple[torch.nn.Linear, torch.nn.Linear, torch.Tensor]:
    """The head before and after; the weights are 0 for all but five samples."""
    _, _, model, samples = problem(tmp_path)
    weights = torch.zeros(30, dtype=torch.float64)
    weights[[3, 8, 9, 20, 29]] = torch.tensor([0.5, 0.1, 2.0, 1.0, 0.7], dtype=torch.float64)
    forget = ForgetSet(samples=samples, classes=(), target_margin=0.0)
    before = [p.detach().clone() for p in model.head.parameters()]
    others = [p.detach().clone() for n, p in model.named_parameters() if "head" not in n]
    generator = torch.Generator().manual_seed(5)
    config = imu_sequences.Config(**fields)
    steps = list(
        imu_sequences.unlearn(
            model, task.NextState(), config, generator, forget=forget, influence=weights
        )
    )
    after = [p for n, p in model.named_parameters() if "head" not in n]
    assert all(torch.equal(a, b) for a, b in zip(others, after, strict=True))
    assert steps[-1].step == config.max_steps
    return before, list(model.head.parameters()), weights


def test_an_iteration_is_one_step_of_adam_up_the_weighted_loss(tmp_path: Path) -> None:
    before, after, weights = unlearned(tmp_path, max_steps=1, batch_size=5, alpha=0.01)
    _, _, model, samples = problem(tmp_path / "again")
    total, counted = torch.zeros((), dtype=torch.float64), 0.0
    for row in weights.nonzero()[:, 0].tolist():
        logs = model(samples.inputs[[row]])[0].log_softmax(-1)
        losses = [-logs[t, y] for t, y in enumerate(samples.targets[row].tolist())]
        total = total + weights[row] * sum(losses) / len(losses)
        counted += float(weights[row])
    norm = sum(p.abs().sum() for p in model.head.parameters())
    (0.01 * norm - total / counted).backward()
    for old, new, parameter in zip(before, after, model.head.parameters(), strict=True):
        gradient = parameter.grad
        step = 5e-4 * gradient / (gradient.abs() + 1e-8)  # Adam's first
        assert (new - (old - step)).abs().max() < 1e-9
        assert (new - old).abs().max() > 4e-4


def test_influence_of_the_untrained_network_is_another_and_leaves_the_rest_alone(
    tmp_path: Path,
) -> None:
    _, _, model, _ = problem(tmp_path)
    state = torch.random.get_rng_state()
    fresh = [imu_sequences.untrained(model, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    vectors = [torch.nn.utils.parameters_to_vector(m.parameters()) for m in (model, *fresh)]
    assert torch.equal(vectors[1], vectors[2])
    assert not torch.equal(vectors[1], vectors[3])
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Embedding):
            assert not torch.equal(layer.weight, fresh[0].get_submodule(name).weight)
    heads = {
        kind: unlearned(tmp_path / kind, influence=kind, max_steps=3)[1][0]
        for kind in ("trained", "untrained", "permuted", "uniform")
    }
    for one, of in heads.items():
        for other, head in heads.items():
            assert torch.equal(of, head) == (one == other)


CHANGES = {
    "data": {"sequences": [600, 300, 300], "length": 8, "seed": 3},
    "split": {
        "dataset": "markov_chains",
        "used": 1.0,
        "scenario": "subject",
        "validation": 0.2,
        "test": 0.2,
        "by_subject": {"subjects": ["chain-2", "chain-3"]},
    },
    "network": {"name": "gpt_small", **NETWORK},
    "train": {"optimizer": "adamw", "epochs": 6, "batch_size": 32, "learning_rate": 0.01},
}
MODELS = ("nothing", "imu_sequences", "as_published_untrained")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("markov")
    for name in ("params.yaml", "requests/forgotten.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(REPOSITORY / name, root / name)
    keep(root, {"retrain": ("reference", "retrain_2"), "unlearn": ("nothing",)})
    known = unlearn.entries()
    change(root, CHANGES | {"unlearn": {name: known[name] for name in MODELS}})
    workspace = Workspace(root)
    made(root / "data" / "markov_chains", Source(sequences=(600, 300, 300), length=8, seed=3))
    split.run(workspace, None)
    train.run(workspace, None)
    influence.run(workspace, None)
    for item in ("reference", "retrain_2"):
        retrain.run(workspace, item)
        evaluate.run(workspace, f"retrain/{item}")
    for item in MODELS:
        unlearn.run(workspace, item)
        evaluate.run(workspace, f"unlearn/{item}")
    report.run(workspace, None)
    return root


def test_the_chains_that_are_forgotten_are_in_no_other_set(ran: Path) -> None:
    workspace = Workspace(ran)
    data = workspace.dataset()
    chains = {
        name: {*data.attributes["subject"][workspace.rows(name, data)].tolist()}
        for name in ("forget", "retain", "validation", "test")
    }
    assert chains.pop("forget") == {"chain-2", "chain-3"}
    assert set(map(frozenset, chains.values())) == {frozenset({"chain-1"})}


def test_every_model_has_every_number_of_sequences_and_a_verdict(ran: Path) -> None:
    table = pd.read_csv(ran / "runs" / "report" / "table.csv").set_index("model")
    names = metrics.about("sequences")
    assert set(names) <= set(table.columns)
    assert not set(metrics.about("classification")) & set(table.columns)
    assert table[list(names)].notna().all(axis=None)
    assert table.loc["nothing", "KL_forgotten"] < 0.7 * table.loc["reference", "KL_forgotten"]
    assert table.loc["nothing", "KL_forget"] > 2 * table.loc["retrain_2", "KL_forget"]
    assert abs(table.loc["reference", "KL_forget"]) < 1e-9
    verdicts = json.loads((ran / "runs" / "report" / "verdicts.json").read_text())
    assert verdicts["nothing"]["outcome"] == "not forgotten"


def test_the_report_shows_sequences_and_every_state(ran: Path) -> None:
    page = (ran / "runs" / "report" / "report.html").read_text()
    workspace = Workspace(ran)
    data = workspace.dataset()
    assert "after state" in page
    assert any(
        " ".join(map(str, data.states[row])) in page for row in workspace.rows("forget", data)
    )
    found = record(workspace, "evaluate", "unlearn/imu_sequences").tables
    assert list(found["slices/least_forgotten.json"])[:2] == ["subject", "sequence"]


def test_relearning_brings_the_chain_back_and_leaves_the_model_alone(tmp_path: Path) -> None:
    data, _, model, samples = problem(tmp_path, torch.float32)
    rows = list(range(60, 90))
    said = metrics.foretold_of(
        model, task.NextState(), data, {"forget": samples}, {"forget": rows}, {"chain-1": 1.0}
    )
    subject = metrics.Subject(
        model=model,
        objective=task.NextState(),
        samples={"forget": samples},
        outputs=said,
    )
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    course = chain_relearning.course(subject)
    assert course[-1] < 0.8 * course[0]
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), before)
    assert chain_relearning.attack(subject) == {"KL_relearn": pytest.approx(np.mean(course))}


def test_a_stored_model_says_what_follows(ran: Path, tmp_path: Path) -> None:
    workspace = Workspace(ran)
    about = artifacts.read_about(workspace.model("train"))
    pack(tmp_path, ran, about, "model.safetensors")
    assert "tokenizers==" in (tmp_path / "requirements.txt").read_text()
    (said,) = json.loads(serving_sequences.signature(about)["outputs"])
    assert said["tensor-spec"] == {"dtype": "float32", "shape": [-1, 10]}
    model = serving.load(workspace.model("train"))
    states = workspace.dataset().states[:3]
    found = model.predict(states[:, :4])
    assert found.shape == (3, 10)
    assert found.sum(1) == pytest.approx(1.0)
    expected = model.network(torch.from_numpy(states[:, :7]))[:, 3].softmax(1).detach().numpy()
    assert np.abs(found - expected).max() < 1e-6
    with pytest.raises(ValueError, match=r"states must be in \[0, 10\), got 1 to 10"):
        model.predict(np.array([[1, 10]]))
    with pytest.raises(ValueError, match=r"sequences must have the shape \(n, 1 or more\)"):
        model.predict(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"sequences must be int64, got float64"):
        model.predict(np.array([[1.0, 2.0]]))


def test_what_is_no_data_of_chains_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a")
    about = json.loads((tmp_path / "a" / "about.json").read_text())
    about["source"]["leakage"] = 2.0
    (tmp_path / "a" / "about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="does not say which chains it was drawn from"):
        markov_chains.load(tmp_path / "a")


def test_samples_of_one_dtype_are_taken() -> None:
    with pytest.raises(TypeError, match="states must be one tensor, got dict"):
        task.NextState().logits(torch.nn.Linear(1, 1), {"states": torch.zeros(1)})
    assert len(Samples(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)))
