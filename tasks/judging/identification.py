"""People: who is in an image, as of images, and whom the network finds where."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from imu import metrics
from imu.datasets import LabelledImages
from imu.datasets.common.people import BOTH, GALLERY, QUERY, answered
from imu.datasets.common.tensors import pixels
from imu.metrics import Subject, outputs_of
from imu.metrics._found import Found, Images
from imu.objectives import Objective, Samples, features_and_logits
from imu.objectives.classification import Classification
from imu.objectives.identification import named
from tasks.files.workspace import Workspace
from tasks.judging import SETS, classification

held = classification.held


class Judge:
    def __init__(
        self,
        workspace: Workspace,
        data: LabelledImages,
        about: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.data, self.about, self.device = data, about, device
        self.classifier = classification.Judge(workspace, data, about, device)
        self.manifests = {name: workspace.read_manifest(name) for name in SETS}
        self.rows = {name: of["index"].tolist() for name, of in self.manifests.items()}

    @property
    def objective(self) -> Classification:
        return self.classifier.objective

    @property
    def samples(self) -> dict[str, Samples]:
        return self.classifier.samples

    def manifest(self, name: str) -> pd.DataFrame:
        asked = named(self.data, self.rows[name], self.about)
        of = self.manifests[name]
        return of[of["index"].isin(asked)].reset_index(drop=True)

    def placed(self, model: nn.Module) -> nn.Module:
        return self.classifier.placed(model)

    def outputs(self, model: nn.Module) -> Found:
        return found(
            model,
            self.objective,
            self.samples,
            self.data,
            self.rows,
            self.about,
            self.classifier.classes,
            seed=self.classifier.workspace.seed,
        )

    def subject(self, model: nn.Module, outputs: Found, original: Found) -> Subject:
        return self.classifier.subject(model, outputs, original)

    def absent(self, outputs: Found) -> dict[str, str]:
        people = len(self.about["classes"])
        given = _counted(self.data, self.rows, outputs.labels, people), outputs.forget_classes
        return metrics.absent(outputs.objective, *given)

    def answers(self, outputs: Found, name: str) -> pd.DataFrame:
        """Who it says it is; in place of the confidence the average precision of a search.

        nearest: rows in the data set of what it finds first, in one text.
        """
        ranked, gallery = outputs.sought[name], outputs.gallery.rows
        told = classification.answers(outputs, name)
        told["confidence"] = np.nan_to_num(ranked.precision)
        told["nearest"] = [" ".join(map(str, gallery[places])) for places in ranked.nearest]
        return told


def found(
    model: nn.Module,
    objective: Objective,
    samples: Mapping[str, Samples],
    data: LabelledImages,
    rows: Mapping[str, list[int]],
    about: Mapping[str, Any],
    classes: tuple[int, ...],
    *,
    seed: int = 0,
) -> Found:
    """What a network says. rows: of every set, those that have a part in searches too."""
    said = outputs_of(model, objective, samples, forget_classes=classes, seed=seed)
    role = data.attributes["role"][rows["test"]]
    searched = _images(model, objective, data, rows["test"])
    return Found(
        **vars(said),
        known=len(about["classes"]),
        queries=searched[np.isin(role, (QUERY, BOTH))],
        gallery=searched[np.isin(role, (GALLERY, BOTH))],
        shown={
            name: _seen(data, named(data, of, about), said.features[name])
            for name, of in rows.items()
        },
    )


def unmeasured(workspace: Workspace, results: pd.DataFrame) -> dict[str, str]:
    data = workspace.dataset()
    assert isinstance(data, LabelledImages)
    tables = {name: workspace.read_manifest(name) for name in (*SETS, "train")}
    labels = {name: of["label"].to_numpy() for name, of in tables.items()}
    rows = {name: of["index"].tolist() for name, of in tables.items()}
    classes = tuple(workspace.read_request()["forget_classes"])
    people = 1 + int(labels["train"].max())
    return metrics.absent("identification", _counted(data, rows, labels, people), classes)


def _counted(
    data: LabelledImages,
    rows: Mapping[str, list[int]],
    labels: Mapping[str, np.ndarray],
    people: int,
) -> dict[str, np.ndarray]:
    """Labels of each set, of the queries that have an answer, and of the people trained on."""
    asked = np.array(rows["test"])
    role, seen = data.attributes["role"][asked], data.labels[asked]
    could = answered(seen, data.attributes["camera"][asked], role)
    queries = seen[np.isin(role, (QUERY, BOTH)) & could]
    return {**labels, "query": queries, "train": np.arange(people)}


def _images(
    model: nn.Module, objective: Objective, data: LabelledImages, rows: list[int]
) -> Images:
    device = next(model.parameters()).device
    inputs, _ = pixels(data, rows, device)
    entering, _ = features_and_logits(model, objective, inputs, metrics.BATCH)
    return _seen(data, rows, entering.double().cpu().numpy())


def _seen(data: LabelledImages, rows: list[int], features: np.ndarray) -> Images:
    return Images(
        features=features,
        people=data.labels[rows],
        cameras=data.attributes["camera"][rows],
        rows=np.array(rows, np.int64),
    )
