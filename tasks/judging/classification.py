"""Images: class probabilities, and what enters the head."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from imu import metrics
from imu.datasets import LabelledImages
from imu.metrics import Outputs, Subject, accuracy
from imu.objectives import Objective, Samples, predictions
from imu.objectives.classification import Classification
from imu.objectives.classification import objective as objective_of
from tasks.files.samples import load_samples
from tasks.files.workspace import Workspace
from tasks.judging import SETS


class Judge:
    def __init__(
        self,
        workspace: Workspace,
        data: LabelledImages,
        about: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        # In channels-last convolutions are fastest, on CPU and GPU alike. A network of the user's
        # gets images as it was trained on them: its code may need that order.
        custom = about["network"] == "custom"
        self.layout = torch.contiguous_format if custom else torch.channels_last
        self.workspace, self.device = workspace, device
        self.objective: Classification = objective_of(about)
        self.samples: dict[str, Samples] = {}
        for name in SETS:
            found, _ = load_samples(workspace, name, data, about, device, stored=True)
            assert isinstance(found.inputs, Tensor)
            self.samples[name] = Samples(
                found.inputs.contiguous(memory_format=self.layout), found.targets
            )
        self.classes = tuple(workspace.read_request()["forget_classes"])

    def manifest(self, name: str) -> pd.DataFrame:
        return self.workspace.read_manifest(name)

    def placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.device).to(memory_format=self.layout)

    def outputs(self, model: nn.Module) -> Outputs:
        return metrics.outputs_of(
            model,
            self.objective,
            self.samples,
            forget_classes=self.classes,
            seed=self.workspace.seed,
        )

    def subject(self, model: nn.Module, outputs: Outputs, original: Outputs) -> Subject:
        return Subject(
            model=model,
            objective=self.objective,
            samples=self.samples,
            outputs=outputs,
            original_accuracy=accuracy.measure(original)["FA"],
        )

    def absent(self, outputs: Outputs) -> dict[str, str]:
        given = (outputs.labels, outputs.forget_classes)
        return metrics.absent(outputs.objective, *given, head=bool(outputs.features))

    def answers(self, outputs: Outputs, name: str) -> pd.DataFrame:
        return answers(outputs, name)


def answers(outputs: Outputs, name: str) -> pd.DataFrame:
    """Class that a model says, whether it is the label, and its probability of the label."""
    predicted = outputs.probabilities[name].argmax(1)
    return pd.DataFrame(
        {
            "predicted": predicted,
            "right": (predicted == outputs.labels[name]).astype(float),
            "confidence": outputs.confidence(name),
        }
    )


def held(
    reference: nn.Module,
    objective: Objective,
    samples: Mapping[str, Samples],
    classes: tuple[int, ...],
) -> Callable[[nn.Module], tuple[dict[str, float], float]]:
    """The gap is the mean distance in points over ``accuracies``."""
    aim = accuracies(reference, objective, samples, classes)

    def of(model: nn.Module) -> tuple[dict[str, float], float]:
        found = accuracies(model, objective, samples, classes)
        return found, sum(abs(found[name] - aim[name]) for name in found) / len(found)

    return of


def accuracies(
    model: nn.Module,
    objective: Objective,
    samples: Mapping[str, Samples],
    classes: tuple[int, ...],
) -> dict[str, float]:
    """Accuracy in % on the forget set, FA, the retain set, RA, and validation images, TA.

    Those of classes forgotten whole are TFA and not in TA.
    """
    right = {
        name: (predictions(model, objective, of.inputs).argmax(1) == of.targets).double()
        for name, of in samples.items()
    }
    found = {"FA": right["forget"], "RA": right["retain"], "TA": right["validation"]}
    if classes:
        labels = samples["validation"].targets
        forgotten = torch.isin(labels, torch.tensor(classes, device=labels.device))
        found |= {"TFA": right["validation"][forgotten], "TA": right["validation"][~forgotten]}
    return {name: 100 * values.mean().item() for name, values in found.items()}


def found(
    model: nn.Module,
    objective: Classification,
    samples: Mapping[str, Samples],
    data: LabelledImages,
    rows: Mapping[str, list[int]],
    about: Mapping[str, Any],
    classes: tuple[int, ...],
) -> Outputs:
    return metrics.outputs_of(model, objective, samples, forget_classes=classes)


def unmeasured(workspace: Workspace, results: pd.DataFrame) -> dict[str, str]:
    labels = {name: workspace.read_manifest(name)["label"].to_numpy() for name in SETS}
    classes = tuple(workspace.read_request()["forget_classes"])
    reasons = metrics.absent("classification", labels, classes)
    headless = metrics.absent("classification", labels, classes, head=False)
    return headless | reasons if results[[*headless]].isna().all(axis=None) else reasons
