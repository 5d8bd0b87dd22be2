"""Influence of every forget sample on the original model, as a table."""

from time import perf_counter

import pandas as pd
from torch import Tensor, nn

from imu import influences
from imu.cost import FlopCounter
from imu.objectives import Objective, Samples, answered
from tasks.files import artifacts, params
from tasks.files.samples import load_samples
from tasks.files.workspace import Stopwatch, Workspace, load_model

EVERY = 5.0  # seconds between two lines of progress


def run(workspace: Workspace, item: None) -> float:
    device = workspace.device()
    config = params.load(workspace.root, "influence", influences.Config)
    data = workspace.dataset()
    model, about = load_model(workspace.model("train"))
    samples, objective = load_samples(workspace, "forget", data, about, device)
    model.to(device)
    if held := influences.held_bytes(model, objective, samples, config):
        print(
            f"at most {held / 1e9:.2g} GB of gradients, or of what they are made from, are held "
            "at once; a smaller influence.chunk takes less"
        )
    watch, flops = Stopwatch(), FlopCounter()
    with watch.running(), flops:
        scores, weights, selected = scored(model, objective, samples, config, _telling())
    table = pd.DataFrame(
        {
            **workspace.read_manifest("forget")[["id", "label"]],
            "loss": answered(model, objective, samples).losses.cpu().numpy(),
            "influence": scores.cpu().numpy(),
            "weight": weights.cpu().numpy(),
            "selected": selected.cpu().numpy(),
        }
    )
    artifacts.write_table(workspace.influence, table)
    artifacts.write_json(
        workspace.influence.with_name("metrics.json"),
        {
            "samples": len(table),
            "selected": int(table["selected"].sum()),
            "spearman_with_loss": _spearman(table, config.score),
            "flops": flops.total,
        },
    )
    print(f"{table['selected'].sum()} of {len(table)} forget samples are to be ascended")
    return watch.seconds


def scored(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    config: influences.Config,
    progress: influences.Progress | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Influence, weight for ascent, and whether a sample is selected: (n,) each."""
    scores = influences.influence(model, objective, samples, config, progress)
    weights, selected = influences.ascent_weights(
        scores,
        score=config.score,
        clip_quantile=config.clip_quantile,
        top_fraction=config.top_fraction,
    )
    return scores, weights, selected


def _telling() -> influences.Progress:
    """Prints how far it is, every few seconds."""
    begin = told = perf_counter()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if (now := perf_counter()) - told > EVERY:
            told = now
            print(f"influence: {100 * done / of:.0f} % in {now - begin:.0f} s", flush=True)

    return tell


def _spearman(table: pd.DataFrame, score: str) -> float | None:
    """Rank correlation of loss and agreement; undefined where one of them is constant.

    Agreement: −influence, or for self-influence, which is never negative, the score itself.
    """
    agreement = table["influence"] if score == "self" else -table["influence"]
    value = agreement.rank().corr(table["loss"].rank())
    return None if pd.isna(value) else float(value)
