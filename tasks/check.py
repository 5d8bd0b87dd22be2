"""Every parameter at once, before anything runs."""

from imu import discovery, influence, splitting, training, verdict
from imu.datasets import Source
from tasks import ensemble, params, retrain, unlearn
from tasks.params import ParameterError
from tasks.workspace import Original, Runtime, Workspace

SECTIONS = {
    "seed": int,
    "snapshots": int,
    "runtime": Runtime,
    "data": Source,
    "split": splitting.Config,
    "original": Original,
    "train": training.Config,
    "influence": influence.Config,
    "verdict": verdict.Config,
}


def everything(workspace: Workspace) -> None:
    """Check all of ``params.yaml``. Raises ParameterError at the first fault."""
    root = workspace.root
    known = {*SECTIONS, "network", "ensemble", "retrain", "unlearn"}
    if unknown := sorted(params.read(root).keys() - known):
        raise ParameterError(
            f"{params.FILE}: unknown section {unknown[0]}; known are {', '.join(sorted(known))}"
        )
    for name, config in SECTIONS.items():
        params.load(root, name, config)
    params.load(root, "ensemble", ensemble.Config, without=("network",))
    for section in ("network", "ensemble.network"):
        network = discovery.load("imu.models", params.section(root, f"{section}.name"))
        params.load(root, section, network.Config, without=("name",))
    for item in params.section(root, "retrain"):
        params.load(root, f"retrain.{item}", retrain.Config)
    for item in params.section(root, "unlearn"):
        if not item.isidentifier() or item in params.section(root, "retrain"):
            raise ParameterError(
                f"{params.FILE}: unlearn.{item}: a name must consist of letters, digits and "
                "underscores, and not stand in retrain as well"
            )
        unlearn.configured(workspace, item)
    print("parameters are valid")
