"""What MLflow needs to load a logged model anywhere: the code that builds it, and the packages."""

import zipfile
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import imu
from imu import discovery
from tasks.files import artifacts
from tasks.files.workspace import OWN

CODE, ENVIRONMENT, PACKAGES = "code.zip", "python_env.yaml", "requirements.txt"
NEEDED = ("mlflow", "numpy", "safetensors", "torch", "torchvision")


def pack(folder: Path, root: Path, about: dict[str, Any], data: str) -> dict[str, Any]:
    """Lay code and requirements of a model into ``folder``; returns its flavours for MLmodel.

    root: of the workspace, whose own code a custom network needs. about, data: description and
    name of the model's file.
    """
    packages = [Path(imu.__file__).parent, *([root / OWN] if about["network"] == "custom" else [])]
    # Files may have the time 0, of which zip knows nothing.
    with zipfile.ZipFile(folder / CODE, "w", strict_timestamps=False) as archive:
        for package in packages:
            for path in (package, *package.rglob("*")):
                # Folders as well: a package without __init__.py is found by its folder.
                if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__"):
                    name = path.relative_to(package.parent)
                    archive.write(path, name, compress_type=zipfile.ZIP_DEFLATED)
    # "2.15.0+cpu" names a kind of build, which no package index of other hosts may have.
    needed = (*NEEDED, *discovery.load("imu.serving", about["objective"]).packages(about))
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in needed]
    artifacts.write_text(folder / PACKAGES, "\n".join(pins) + "\n")
    environment = {
        "python": python_version(),
        "build_dependencies": ["pip"],
        "dependencies": [f"-r {PACKAGES}"],
    }
    artifacts.write_json(folder / ENVIRONMENT, environment)  # JSON is YAML
    return {
        "python_function": {
            "loader_module": "imu.serving",
            "python_version": python_version(),
            "code": CODE,
            "data": data,
            "env": {"virtualenv": ENVIRONMENT},
        }
    }
