"""Train the original model; ``tasks.retrain`` uses the same recipe."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from imu import training
from imu.cost import FlopCounter
from imu.objective import mean_cross_entropy, predictions
from tasks import artifacts, params
from tasks.record import Record
from tasks.samples import load_samples
from tasks.workspace import Stopwatch, Workspace


def run(workspace: Workspace, item: None) -> float:
    return fit(workspace, "train", workspace.runs / "train", workspace.seed)


def record(workspace: Workspace, item: None) -> Record:
    return fitted(workspace, "train", workspace.runs / "train", workspace.seed)


def fit(workspace: Workspace, manifest: str, out: Path, seed: int) -> float:
    """Train on one manifest from one seed; returns the seconds that training took.

    Kept with the model: its accuracy and loss on validation data, which it has not seen. That is
    the number at which sample-wise unlearning stops.
    """
    device = workspace.device()
    config = params.load(workspace.root, "train", training.Config)
    data = workspace.dataset()
    rows = workspace.rows(manifest, data)
    model, about = workspace.new_model(data, seed)
    model.to(device)
    watch, flops, epochs = Stopwatch(), FlopCounter(), []
    progress = training.fit(model, data, rows, config, seed=seed, device=device)
    while True:
        with watch.running(), flops:
            epoch = next(progress, None)
        if epoch is None:
            break
        epochs.append(epoch)
        print(
            f"epoch {epoch.epoch}/{config.epochs}: loss {epoch.loss:.4f}, "
            f"accuracy {epoch.accuracy:.2f} %"
        )
    scores = {}
    for name in (manifest, "validation", "test"):
        samples, objective = load_samples(workspace, name, data, device)
        logits = predictions(model, objective, samples.inputs)
        scores[name] = {
            "accuracy": 100 * (logits.argmax(1) == samples.targets).double().mean().item(),
            "loss": mean_cross_entropy(logits.double(), samples.targets).mean().item(),
        }
    artifacts.write_table(out / "curve.csv", pd.DataFrame(epochs))
    artifacts.write_tensors(
        out / "model.safetensors", model.state_dict(), about | {"unseen": scores["validation"]}
    )
    artifacts.write_json(
        out / "metrics.json",
        {f"{name}_{key}": value for name, score in scores.items() for key, value in score.items()}
        | {"flops": flops.total},
    )
    return watch.seconds


def fitted(workspace: Workspace, manifest: str, out: Path, seed: int) -> Record:
    curve = artifacts.read_table(out / "curve.csv")
    return Record(
        params={
            "seed": seed,
            "train": asdict(params.load(workspace.root, "train", training.Config)),
            "network": params.section(workspace.root, "network"),
        },
        metrics=artifacts.read_json(out / "metrics.json"),
        curves={
            name: list(zip(curve["epoch"].tolist(), curve[name].tolist(), strict=True))
            for name in ("loss", "accuracy", "learning_rate")
        },
        files={"curves": [out / "curve.csv"]},
        model=out / "model.safetensors",
        manifests={manifest: workspace.manifest(manifest)},
    )
