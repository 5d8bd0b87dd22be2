"""Near-duplicates of forgotten samples, by what the model that is to forget them sees in them.

    d(x, y) = ‖h(x) − h(y)‖ / m,    m = median over samples z of min over z' ≠ z of ‖h(z) − h(z')‖

h: features, what enters the head; of texts their mean over the positions that are answered. In
units of m, a distance means the same for every network: at 1 a sample lies as near as samples do.
Of classes that are told apart well all features are alike, and so are their distances; m is small
there as well. Search is exact, over all samples of the data. m is of at most ``DRAWN`` of them.

    python -m tasks near FILE
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imu import discovery
from imu.models import has_head
from imu.objectives import IGNORED, features_and_logits
from tasks import data
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, load_model

BATCH = 16  # of a pass: of texts every position has a logit for each token
ROWS = 64  # whose distances to all others are held at once
DRAWN = 1000
WITHOUT_HEAD = "the network has no linear head, so its features are not known"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a file asks for."""

    model: str  # path in the workspace
    ids: list[str]
    nearer: float  # than that samples are listed, in units of m


def asked(workspace: Workspace, file: Path) -> None:
    """Answer ``file``, which asks what lies near some samples, in its place.

    It has {"model": path, "ids": […], "nearer": d}; then {"near": [{"id", "of", "distance"}, …],
    "why_not": ""}, the nearest first. of: the forgotten sample that it is nearest to. Left out are
    what was forgotten before, and exact copies.
    """
    given = params.parse(artifacts.read_json(file), "asked", Asked, file=str(file))
    found = workspace.dataset()
    samples = data.samples_of(found)
    name = params.section(workspace.root, "split.forgotten_before")
    before = data.forgotten_before(workspace, samples, name)["id"]
    listed = samples["id"].isin(given.ids)
    copies = samples["sha256"].isin(samples["sha256"][listed]) & ~listed
    others = samples[~listed & ~copies & ~samples["id"].isin(before)]
    model, about = load_model(workspace.root / given.model)
    if not has_head(model):
        artifacts.write_json(file, {"near": [], "why_not": WITHOUT_HEAD}, mode=0o600)
        return
    features = features_of(model, about, found, workspace.device())
    of, rows = samples["index"][listed].tolist(), others["index"].tolist()
    distance, nearest = nearest_of(features[rows], features[of])
    distance /= usual(features[rows])
    chosen = [i for i in np.argsort(distance, kind="stable") if distance[i] < given.nearer]
    near = [
        {
            "id": str(found.ids[rows[i]]),
            "of": str(found.ids[of[nearest[i]]]),
            "distance": round(float(distance[i]), 4),
        }
        for i in chosen
    ]
    artifacts.write_json(file, {"near": near, "why_not": ""}, mode=0o600)


def features_of(model: Any, about: dict[str, Any], found: Any, device: torch.device) -> Tensor:
    """(n, d), of all samples of the data set ``found``."""
    kind, model = discovery.load("imu.objectives", about["objective"]), model.to(device)
    objective, parts = kind.objective(about), []
    for start in range(0, len(found.labels), BATCH):
        rows = list(range(start, min(start + BATCH, len(found.labels))))
        samples = kind.samples(found, rows, about, device)
        entering, _ = features_and_logits(model, objective, samples.inputs, BATCH)
        if entering.ndim > 2:  # (n, positions, d)
            answered = (samples.targets != IGNORED).unsqueeze(-1)
            entering = (entering * answered).sum(1) / answered.sum(1).clamp(min=1)
        parts.append(entering.double().cpu())
    return torch.cat(parts)


def nearest_of(
    features: Tensor, others: Tensor, *, itself: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each to the nearest of ``others``, and which that is: (n,) each.

    itself: ``features`` are the first of ``others``, and none is its own neighbour.
    """
    distances, places = [], []
    for start in range(0, len(features), ROWS):
        between = torch.cdist(  # not by a matrix product, in which what is equal is not at 0
            features[start : start + ROWS], others, compute_mode="donot_use_mm_for_euclid_dist"
        )
        if itself:
            between.diagonal(start).fill_(torch.inf)
        least = between.min(1)
        distances.append(least.values.numpy())
        places.append(least.indices.numpy())
    return np.concatenate(distances), np.concatenate(places)


def usual(features: Tensor) -> float:
    """m, the median distance of a sample to its nearest other; 1 where that is 0."""
    order = np.random.default_rng(0).permutation(len(features))
    mixed = features[torch.from_numpy(order)]
    distance, _ = nearest_of(mixed[:DRAWN], mixed, itself=True)
    return float(np.median(distance)) or 1.0
