"""Influence of every forget sample on the original model, as a table."""

from dataclasses import asdict

import pandas as pd
from torch.nn import functional as F

from imu import influence, training
from imu.cost import FlopCounter
from imu.models import features_and_logits
from tasks import artifacts, params
from tasks.record import Record
from tasks.workspace import Stopwatch, Workspace, load_model


def run(workspace: Workspace, item: None) -> float:
    device = workspace.device()
    config = params.load(workspace.root, "influence", influence.Config)
    data = workspace.dataset()
    images, labels = training.pixels(data, workspace.rows("forget", data), device)
    model, _ = load_model(workspace.model("train"))
    model.to(device)
    watch, flops = Stopwatch(), FlopCounter()
    with watch.running(), flops:
        features, logits = features_and_logits(model, training.normalised(images, data))
        scores = influence.head_influence(features, logits, labels, damping=config.damping).scores
        weights, selected = influence.ascent_weights(
            scores, clip_quantile=config.clip_quantile, top_fraction=config.top_fraction
        )
    table = pd.DataFrame(
        {
            "id": workspace.read_manifest("forget")["id"],
            "label": labels.cpu().numpy(),
            "loss": F.cross_entropy(logits, labels, reduction="none").cpu().numpy(),
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
            "spearman_with_loss": _spearman(table),
            "flops": flops.total,
        },
    )
    print(f"{table['selected'].sum()} of {len(table)} forget samples have negative influence")
    return watch.seconds


def record(workspace: Workspace, item: None) -> Record:
    table = artifacts.read_table(workspace.influence)
    metrics = artifacts.read_json(workspace.influence.with_name("metrics.json"))
    return Record(
        params={"influence": asdict(params.load(workspace.root, "influence", influence.Config))},
        metrics={name: value for name, value in metrics.items() if value is not None}
        | {"influence_min": table["influence"].min(), "influence_max": table["influence"].max()},
        files={"influence": [workspace.influence]},
        manifests={"forget": workspace.manifest("forget")},
    )


def _spearman(table: pd.DataFrame) -> float | None:
    """Rank correlation of −influence and loss; undefined where one of them is constant."""
    value = table["influence"].rank().corr(-table["loss"].rank())
    return None if pd.isna(value) else float(value)
