"""Judge a method sample by sample: it unlearns many networks, which are held against many oracles.

The networks are those of ``tasks.ensemble``: small, so that there can be many. What is judged is
the method, with its parameters of ``params.yaml``, not the one model of the unlearn stage.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from imu import ensemble, influences, methods, metrics
from imu.unseen import unseen
from tasks import unlearn
from tasks.ensemble import SETS, read_networks
from tasks.files import artifacts, params
from tasks.files.margins import read_margins
from tasks.files.samples import labels_of, load_samples
from tasks.files.workspace import Stopwatch, Workspace
from tasks.influence import scored

ORACLES = "oracle"


def run(workspace: Workspace, item: str) -> float:
    """``item`` is an entry of ``unlearn``."""
    out, watch = workspace.per_sample(item), Stopwatch()
    judged = _unlearned(workspace, item, watch)
    oracles = read_margins(workspace, ORACLES)
    values = metrics.over_models(judged, oracles)
    artifacts.write_table(out / "samples.parquet", _samples(workspace, judged, oracles))
    artifacts.write_json(out / "metrics.json", values)
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    return watch.seconds


def _unlearned(workspace: Workspace, item: str, watch: Stopwatch) -> metrics.Family:
    """The family of originals after ``item`` has unlearned each, under a seed of its own."""
    device, data = workspace.device(), workspace.dataset()
    entry = unlearn.configured(workspace, item)
    networks, about = read_networks(workspace, "original")
    loaded = {name: load_samples(workspace, name, data, about, device) for name in SETS}
    objective = loaded["forget"][1]
    sets = {name: samples for name, (samples, _) in loaded.items()}
    visible = {name: sets[name] for name in {"forget", entry.data_access}}
    config = params.load(workspace.root, "influence", influences.Config)
    for network in networks:
        network.to(device)
    before = {
        name: torch.from_numpy(m) for name, m in read_margins(workspace, "original").margins.items()
    }
    trained = torch.cat([before["forget"], before["retain"]], 1)
    own, labels = (
        torch.cat([labels_of(workspace, name) for name in names])
        for names in (("forget", "retain"), ("validation",))
    )
    diverged, unfinished = [], 0
    for number, network in enumerate(networks):

        def weights(network: nn.Module = network) -> Tensor:
            return scored(network, objective, sets["forget"], config)[1]

        others = before["validation"][number]
        kept = unseen(trained[number], own, others, labels, len(data.classes))
        given = unlearn.available(workspace, visible, kept, device) | {"influence": weights}
        seed = workspace.seed + number
        said = f"network {number + 1}/{len(networks)}"
        try:
            with watch.running():
                *_, last = methods.run(
                    entry.method, network, objective, entry.config, seed=seed, available=given
                )
            print(f"{said}: forget accuracy {last.accuracy:.2f} %, mean margin {last.margin:.3f}")
        except FloatingPointError as error:
            diverged.append(number)
            print(f"{said}: {error}")
        except methods.UnlearningError as error:
            unfinished += 1
            print(f"{said}: {error}")
    margins = {
        name: ensemble.margins(networks, objective, samples).cpu().numpy()
        for name, samples in sets.items()
    }
    for of_set in margins.values():
        of_set[diverged] = -np.inf
    return metrics.Family(margins=margins, diverged=len(diverged), unfinished=unfinished)


def _samples(workspace: Workspace, judged: metrics.Family, oracles: metrics.Family) -> pd.DataFrame:
    """Per sample: set, id, label, and the mean margin of the judged networks and of the oracles."""
    tables = []
    for name in SETS:
        table = workspace.read_manifest(name)[["id", "label"]]
        table.insert(0, "set", name)
        table["margin"] = judged.margins[name].mean(0)
        table["oracle_margin"] = oracles.margins[name].mean(0)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
