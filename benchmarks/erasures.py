"""Fifty erasure requests in a row on the handwritten digits: drift, cost, when retraining pays.

    python -m benchmarks.erasures [--seconds 150]     again and again, until it says that it is done

writes docs/erasures.csv, a row per request, and docs/erasures.png. Each request takes ``SAMPLES``
training samples drawn at random. Three models serve them:

    unlearned   imu_deep, from the model that served the request before; never retrained
    bounded     the same, but retrained where it then lies farther than ``BOUND`` from retraining
    retrained   without the samples of this and all earlier requests

TV is measured on the test images, to ``retrained``; so is that of a model retrained with another
seed, the noise floor. Seconds are of one core (process time): of unlearning, and of one training.
"""

from copy import deepcopy
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import imu
from flows.erasing.work import Options
from imu import metrics, splitting, training
from imu.datasets import LabelledImages, digits
from imu.datasets.common.tensors import pixels
from imu.metrics import total_variation, unseen_divergence
from imu.models import resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tasks.files import artifacts
from tasks.pages import figures
from tasks.starting import calling

REQUESTS, SAMPLES = 50, 5
BOUND = Options().drift
CPU = torch.device("cpu")
SEED, OTHER = 0, 1000  # of trainings: as the pipeline's reference, and for the noise floor
STATE = Path(".cells/erasures")
CSV, PNG = Path("docs/erasures.csv"), Path("docs/erasures.png")


class Simulation:
    def __init__(self, root: Path):
        self.data: LabelledImages = digits.load(root / "data" / "digits")
        data, config = self.data, splitting.Config()
        listed = {"id": data.ids, "index": range(len(data.labels)), "label": data.labels}
        samples = pd.DataFrame(listed | {"sha256": data.ids})
        sets = splitting.split(samples, config, data.classes)
        self.rows = {name: table["index"].tolist() for name, table in sets.items()}
        order = np.random.default_rng(SEED).permutation(self.rows["train"])
        self.asked = order[: REQUESTS * SAMPLES].reshape(REQUESTS, SAMPLES).tolist()
        self.task = Classification(mean=data.mean, std=data.std, scale=data.scale)
        self.state = root / STATE

    def samples(self, rows: list[int]) -> Samples:
        images, labels = pixels(self.data, rows, CPU)
        return Samples(images, labels)

    def trained(self, without: list[int], seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = resnet_small.build(resnet_small.Config(width=8), (1, 8, 8), 10)
        rows = sorted(set(self.rows["train"]) - set(without))
        for _ in training.fit(model, self.data, rows, training.Config(), seed=seed, device=CPU):
            pass
        return model

    def kept(self, name: str, number: int) -> nn.Module:
        """The model that served the first ``number`` requests."""
        if number == 0:
            return self.trained([], SEED)
        path = self.state / f"{name}-{number}.safetensors"
        model = resnet_small.build(resnet_small.Config(width=8), (1, 8, 8), 10)
        model.load_state_dict(artifacts.read_tensors(path)[0])
        return model

    def keep(self, name: str, number: int, model: nn.Module) -> None:
        path = self.state / f"{name}-{number}.safetensors"
        artifacts.write_tensors(path, model.state_dict(), {})

    def request(self, number: int) -> dict[str, Any]:
        forgotten = [i for asked in self.asked[: number + 1] for i in asked]
        forget, heldout = self.samples(self.asked[number]), self.samples(self.rows["validation"])
        sets = {"forget": self.samples(forgotten), "test": self.samples(self.rows["test"])}

        def said(model: nn.Module) -> metrics.Measured:
            return metrics.Measured(outputs=metrics.outputs_of(model, self.task, sets))

        begin = process_time()
        reference = self.trained(forgotten, SEED)
        row: dict[str, Any] = {"request": number + 1, "forgotten": len(forgotten)}
        row["training s"] = process_time() - begin
        retrained = said(reference)
        models, before = {}, {name: self.kept(name, number) for name in ("unlearned", "bounded")}
        for name, model in before.items():
            begin = process_time()
            models[name] = imu.unlearn(
                model, forget, method="imu_deep", heldout=heldout, objective=self.task
            ).model
            row[f"unlearning s, {name}"] = process_time() - begin
        models["another seed"] = self.trained(forgotten, OTHER)
        for name, model in models.items():
            measured = said(model)
            row[f"TV {name}"] = total_variation.compare(measured, retrained)["TV"]
            row |= {f"JSD_unseen {name}": v for v in unseen_divergence.alone(measured).values()}
            right = (
                measured.outputs.probabilities["test"].argmax(1) == retrained.outputs.labels["test"]
            )
            row[f"TA {name}"] = 100 * right.mean()
        row["retrained"] = row["TV bounded"] > BOUND
        if row["retrained"]:
            models["bounded"] = deepcopy(reference)
        for name in before:
            self.keep(name, number + 1, models[name])
        return row


def figure(table: pd.DataFrame) -> bytes:
    drift, cost = "distance to retraining on test images (TV)", "core seconds, summed up"
    unlearning = table["unlearning s, bounded"].cumsum()
    served = unlearning + (table["training s"] * table["retrained"]).cumsum()
    return figures.curves(
        [
            figures.Panel(
                "Drift",
                "requests served",
                drift,
                {
                    "imu_deep, never retrained": list(table["TV unlearned"]),
                    f"imu_deep, retrained beyond {BOUND:g}": list(table["TV bounded"]),
                },
                band=float(table["TV another seed"].max()),
                bound=(f"drift {BOUND:g}", BOUND),
            ),
            figures.Panel(
                "Cost",
                "requests served",
                cost,
                {
                    "imu_deep, never retrained": list(table["unlearning s, unlearned"].cumsum()),
                    f"imu_deep, retrained beyond {BOUND:g}": list(served),
                    "retrained for each": list(table["training s"].cumsum()),
                },
            ),
        ]
    )


def main() -> None:
    parser = calling.parser("benchmarks.erasures", __doc__)
    parser.add_argument("--seconds", type=float, default=150, help="after which it stops")
    seconds, begin, root = parser.parse_args().seconds, monotonic(), Path.cwd()
    torch.set_num_threads(1)
    simulation, done = Simulation(root), root / STATE / "done.json"
    rows = artifacts.read_json(done) if done.is_file() else []
    while len(rows) < REQUESTS and monotonic() - begin < seconds:
        rows.append(simulation.request(len(rows)))
        artifacts.write_json(done, [{k: np.asarray(v).item() for k, v in r.items()} for r in rows])
        print(f"request {len(rows)} of {REQUESTS}", flush=True)
    if len(rows) < REQUESTS:
        print("run this again: it goes on from here")
        return
    table = pd.DataFrame(rows)
    artifacts.write_table(root / CSV, table.round(5))
    artifacts.write_bytes(root / PNG, figure(table))
    print(f"done: {CSV}, {PNG}")


if __name__ == "__main__":
    main()
