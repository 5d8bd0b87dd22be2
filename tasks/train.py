"""Train the original model, or take one that is trained; ``tasks.retrain`` uses the same recipe."""

import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from imu import checkpoint, discovery, training
from imu.class_order import Predicted, remarks
from imu.cost import FlopCounter
from imu.datasets import Dataset
from imu.models import evaluating
from imu.objectives import IGNORED, answered, margins_at, predictions
from imu.training import distributed
from imu.unseen import unseen
from tasks.files import artifacts, params
from tasks.files.progress import Progress
from tasks.files.samples import load_samples
from tasks.files.workspace import Runtime, Stopwatch, Workspace


def run(workspace: Workspace, item: None) -> float | None:
    given = workspace.original.checkpoint
    if not given:
        return fit(workspace, "train", workspace.runs / "train", workspace.seed)
    data, device = workspace.dataset(), workspace.device()
    model, about = workspace.new_model(data, workspace.seed)
    taken = checkpoint.load_into(model, workspace.root / given)
    print("; ".join((f"weights of {given}; not trained", *taken)))
    keep(workspace, "train", workspace.runs / "train", model.to(device), about, [], 0)
    found = {}
    for name in ("train", "validation", "test"):
        samples, objective = load_samples(workspace, name, data, about, device)
        if samples.targets.dim() == 1:  # one label each, whose order may be another
            said = predictions(model, objective, samples.inputs).argmax(1)
            found[name] = Predicted(samples.targets.cpu().numpy(), said.cpu().numpy())
    if found:
        print("\n".join(remarks(found, data.classes)))
    return None


def fit(workspace: Workspace, manifest: str, out: Path, seed: int) -> float:
    """Train on one manifest from one seed; returns the seconds that training took.

    Kept with the model: margins of validation samples, which it has not seen. There sample-wise
    unlearning stops.
    """
    runtime = params.load(workspace.root, "runtime", Runtime)
    if runtime.processes == 1:
        return _fit(workspace, manifest, out, seed, workspace.device(), distributed.ALONE)
    if runtime.device == "cuda" and runtime.processes > torch.cuda.device_count():
        raise params.ParameterError(
            f"{params.FILE}: runtime.processes must be <= the number of GPUs "
            f"({torch.cuda.device_count()}), got {runtime.processes}"
        )
    with tempfile.NamedTemporaryFile("r") as seconds:
        distributed.launch(
            one_of_several,
            [workspace, manifest, out, seed, seconds.name],
            runtime.processes,
            "nccl" if runtime.device == "cuda" else "gloo",
        )
        return float(seconds.read())


def one_of_several(
    world: distributed.World, workspace: Workspace, manifest: str, out: Path, seed: int, to: str
) -> None:
    """What one of several processes does; the first writes the outputs, and the seconds ``to``."""
    # Of convolutions of 1×1 pixels, whose strides have two names.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    device = workspace.device()
    if device.type == "cuda":
        device = torch.device("cuda", world.rank)
        torch.cuda.set_device(device)
    seconds = _fit(workspace, manifest, out, seed, device, world)
    if world.rank == 0:
        Path(to).write_text(str(seconds))


def _fit(
    workspace: Workspace,
    manifest: str,
    out: Path,
    seed: int,
    device: torch.device,
    world: distributed.World,
) -> float:
    config = params.load(workspace.root, "train", training.Config)
    data = workspace.dataset()
    rows = workspace.rows(manifest, data)
    model, about = workspace.new_model(data, seed)
    model.to(device)
    flops = operations(model, data, rows, about, config, device)
    watch, epochs = Stopwatch(), []
    if world.rank == 0:
        lines = Progress(workspace, str(out.relative_to(workspace.runs)), training.Epoch._fields)
    progress = training.fit(model, data, rows, config, seed=seed, device=device, about=about)
    while True:
        with watch.running():
            epoch = next(progress, None)
        if epoch is None:
            break
        epochs.append(epoch)
        if world.rank == 0:
            lines.add(*epoch)
            print(
                f"epoch {epoch.epoch}/{config.epochs}: loss {epoch.loss:.4f}, "
                f"accuracy {epoch.accuracy:.2f} %"
            )
    if world.rank > 0:
        return watch.seconds
    keep(workspace, manifest, out, model, about, epochs, flops)
    return watch.seconds


def keep(
    workspace: Workspace,
    manifest: str,
    out: Path,
    model: nn.Module,
    about: dict[str, Any],
    epochs: list[training.Epoch],
    flops: int,
) -> None:
    """Write a model that was trained on ``manifest``."""
    data, device = workspace.dataset(), workspace.device()
    values, lying, read = {}, [], None
    for name in (manifest, "validation", "test"):
        samples, objective = load_samples(workspace, name, data, about, device)
        found = answered(model, objective, samples)
        values[f"{name}_accuracy"] = 100 * found.right.mean().item()
        values[f"{name}_loss"] = found.losses.mean().item()
        if name != "test":
            tokens = samples.targets.dim() > 1
            margins = margins_at(model, objective, samples) if tokens else found.margins
            predicted = samples.targets != IGNORED
            lying += [margins[predicted].cpu(), samples.targets[predicted].cpu()]
        if name == "validation" and isinstance(samples.inputs, torch.Tensor) and tokens:
            read = samples.inputs.cpu()
    kept = unseen(*lying, classes=len(data.classes), tokens=tokens, read=read)
    artifacts.write_table(out / "curve.csv", pd.DataFrame(epochs, columns=training.Epoch._fields))
    artifacts.write_tensors(
        out / "model.safetensors", model.state_dict(), about | {"unseen": asdict(kept)}
    )
    artifacts.write_json(out / "metrics.json", values | {"flops": flops})


def operations(
    model: nn.Module,
    data: Dataset,
    rows: list[int],
    about: dict[str, Any],
    config: training.Config,
    device: torch.device,
) -> int:
    """Of training on ``rows``, in all processes together; ``model`` stays as it is.

    Those of the first batch, for all have the same or, of texts, nearly so: counting along would
    count the share of one process, and a compiled network cannot be counted.
    """
    kind = discovery.load("imu.objectives", data.objective)
    first = kind.samples(data, rows[: config.batch_size], about, device)
    with evaluating(model), FlopCounter() as flops:  # draws no random number, as dropout would
        kind.objective(about).logits(model, first.inputs)
    return flops.total * config.epochs * (len(rows) // config.batch_size)
