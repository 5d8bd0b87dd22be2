"""Data sets, networks, methods and metrics are found by the name of their file."""

import importlib.util
import pkgutil
from functools import cache
from types import ModuleType


@cache
def names(package: str) -> tuple[str, ...]:
    """Names of the public modules in ``package``, sorted; its folder is read once."""
    spec = importlib.util.find_spec(package)  # does not import what may take seconds to
    assert spec is not None
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return tuple(sorted(m.name for m in found if not m.name.startswith("_") and not m.ispkg))


def load(package: str, name: str) -> ModuleType:
    """Import ``package.name``; a ``ValueError`` lists the choices when there is no such file."""
    if name not in names(package):
        raise ValueError(f"{package} has no {name!r}: choose from {', '.join(names(package))}")
    return importlib.import_module(f"{package}.{name}")
