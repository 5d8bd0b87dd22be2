"""Requests: which samples are to be forgotten; and the networks that are trained for them."""

from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.gpu.lab import FORGOTTEN, Lab, Record, ascent_weights
from imu import influences, selecting, splitting, training
from imu.datasets import LabelledImages
from imu.datasets.common.tensors import pixels
from imu.methods import ForgetSet
from imu.objectives import Samples, margins, predictions
from imu.objectives.classification import Classification
from imu.unseen import Unseen, unseen

SETS = ("forget", "retain", "validation", "test")
SCENARIOS = ("class", "fraction")
# Name -> the request that it is trained for; the original is the same for all.
NETWORKS = {"original": "class"} | {f"reference-{scenario}": scenario for scenario in SCENARIOS}


class Cell:
    """One request, and the samples that it divides the data into."""

    def __init__(
        self, data: LabelledImages, config: splitting.Config, device: torch.device
    ) -> None:
        listed = {"id": data.ids, "index": range(len(data.labels)), "label": data.labels}
        samples = pd.DataFrame(listed | {"sha256": data.ids})  # copies are not looked for
        sets = splitting.split(samples, config, data.classes, data.published_test)
        chosen = selecting.select(samples, sets, config, data.classes)
        self.rows = {name: rows["index"].tolist() for name, rows in chosen.sets.items()}
        self.data, self.device, self.classes = data, device, chosen.forget_classes
        self.task = Classification(mean=data.mean, std=data.std, scale=data.scale)

    def samples(self, name: str, most: int | None = None) -> Samples:
        """Those of a set, or ``most`` of them at random; the forget set in [0, 1], as in stages."""
        rows = self.rows[name]
        if most is not None and most < len(rows):
            chosen = np.random.default_rng(0).choice(len(rows), most, replace=False)
            rows = [rows[i] for i in sorted(chosen)]
        images, labels = pixels(self.data, rows, self.device)
        return Samples(images.float() / self.data.scale if name == "forget" else images, labels)

    def logits(self, model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
        """In float64, and the labels."""
        samples = self.samples(name)
        return predictions(model, self.task, samples.inputs).double(), samples.targets

    def accuracy(self, model: nn.Module, name: str) -> float:
        """In %."""
        logits, labels = self.logits(model, name)
        return 100 * (logits.argmax(1) == labels).double().mean().item()

    def given(
        self, model: nn.Module, forget: Samples, unseen: Unseen
    ) -> dict[str, Callable[[], Any]]:
        """What methods may need, by the same rules as in stages."""
        if self.classes:
            chosen = ForgetSet.whole(forget, self.classes)
        else:
            chosen = ForgetSet.as_unseen(forget, unseen)
        config = influences.Config()

        return {
            "forget": lambda: chosen,
            "influence": lambda: ascent_weights(model, self.task, forget, config),
            "retain": lambda: self.samples("retain"),
        }


def request(lab: Lab, scenario: str) -> Cell:
    config = splitting.Config(
        dataset="cifar10",
        validation=lab.sizes.validation,
        test="published",
        scenario=scenario,  # type: ignore[arg-type]
        by_class=splitting.ClassRequest(classes=(FORGOTTEN,)),
    )
    return Cell(lab.data, config, lab.device)


def train(lab: Lab, name: str, recipe: training.Config) -> Record:
    """Train one of ``NETWORKS``; its weights are kept for later checks.

    Raises TimeoutError when an epoch more would not fit in the time left.
    """
    cell = request(lab, NETWORKS[name])
    part = "train" if name == "original" else "retain"
    rows = cell.rows[part]
    model = lab.build().to(lab.device)
    begin, ends = perf_counter(), [0.0]
    for epoch in training.fit(model, lab.data, rows, recipe, seed=0, device=lab.device):
        ends.append(perf_counter() - begin)  # its loss was read, so the device is done
        if epoch.epoch < recipe.epochs and lab.left() < ends[-1] - ends[-2]:
            raise TimeoutError(f"{name}: no time for epoch {epoch.epoch + 1} of {recipe.epochs}")
    trained_on, held = (margins(*cell.logits(model, each)) for each in (part, "validation"))
    own, labels = (cell.samples(each).targets.cpu() for each in (part, "validation"))
    kept = unseen(trained_on, own, held, labels, len(lab.data.classes))
    path = lab.scratch / f"{name}.pt"
    state = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    torch.save({"state": state, "unseen": asdict(kept)}, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return {
        "samples": len(rows),
        "images": recipe.epochs * (len(rows) // recipe.batch_size) * recipe.batch_size,
        "seconds": ends[-1],
        "epochs": np.diff(ends).tolist(),
        **{each: cell.accuracy(model, each) for each in ("validation", "test")},
    }


def trained(lab: Lab, name: str) -> bool:
    return (lab.scratch / f"{name}.pt").exists()


def load(lab: Lab, name: str) -> tuple[nn.Module, Unseen]:
    """A trained network, and what it says of what it has not seen."""
    kept = torch.load(lab.scratch / f"{name}.pt")
    model = lab.build()
    model.load_state_dict(kept["state"])
    return model.to(lab.device).eval(), Unseen(**kept["unseen"])
