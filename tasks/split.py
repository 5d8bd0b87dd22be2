"""Divide the data set, and the training set into what is forgotten and what is retained."""

import numpy as np
import pandas as pd

from imu import splitting
from imu.datasets import Source
from tasks.data import require_source
from tasks.files import artifacts, params
from tasks.files.workspace import Workspace, digest


def run(workspace: Workspace, item: None) -> None:
    config = params.load(workspace.root, "split", splitting.Config)
    source = params.load(workspace.root, "data", Source)
    require_source(workspace.root / "data" / config.dataset, source)
    data = workspace.dataset()
    samples = pd.DataFrame(
        {
            "id": data.ids,
            "index": np.arange(len(data.labels)),
            "label": data.labels,
            "sha256": [digest(data, row) for row in range(len(data.labels))],
        }
    )
    requested = None
    if config.scenario == "ids":
        requested = artifacts.read_table(workspace.root / config.by_ids.file, id="str")
    sets, whole = splitting.select(
        splitting.split(samples, config, data.published_test, data.published_validation),
        config,
        data.classes,
        requested,
        data.attributes,
    )
    for name, rows in sets.items():
        artifacts.write_table(workspace.manifest(name), rows)
        print(f"{name}: {len(rows)} samples")
    artifacts.write_json(
        workspace.request,
        {
            "dataset": config.dataset,
            "scenario": config.scenario,
            "forget": _described(config),
            "forget_classes": whole,
            "classes": data.classes,
        },
    )


def _described(config: splitting.Config) -> str:
    if config.scenario == "class":
        return "class " + ", ".join(config.by_class.classes)
    if config.scenario == "fraction":
        kind = "stratified" if config.by_fraction.stratified else "random"
        return f"{kind} {100 * config.by_fraction.fraction:g} %"
    if config.scenario == "group":
        return f"{config.by_group.attribute} {', '.join(config.by_group.values)}"
    if config.scenario == "subject":
        return f"subject {', '.join(config.by_subject.subjects)}"
    return f"ids in {config.by_ids.file}"
