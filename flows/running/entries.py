"""The section ``unlearn`` of a run that was asked for one method."""

from pathlib import Path
from typing import Any

from flows.running.requests import Method
from tasks.files import params
from tasks.files.workspace import baselines


def entries_of(root: Path, method: Method, parameters: dict[str, Any]) -> dict[str, Any]:
    """The section ``unlearn`` with one method beside the baselines.

    Raises ParameterError for parameters that the method does not have.
    """
    known = params.section(root, "unlearn")
    name, entry = entry_of(known, method, parameters)
    nothing = {"nothing": {"method": "nothing", "data_access": "forget"}}
    return nothing | baselines(known) | {name: entry}


def entry_of(
    known: dict[str, Any], method: Method, parameters: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Name and content of a method's entry in ``known``, a section ``unlearn``, else its default.

    Of several entries of the method the one that bears its name, else the first. Raises
    ParameterError for parameters that the method does not have, and for another section.
    """
    entries = known.values() if isinstance(known, dict) else [known]
    if not all(isinstance(entry, dict) and "method" in entry for entry in entries):
        raise params.ParameterError(
            f"{params.FILE}: unlearn must be a mapping of entries, each with its method, got "
            f"{params.shown(known)}"
        )
    found = {name: entry for name, entry in known.items() if entry["method"] == method}
    if not found:
        from tasks import unlearn

        found = {
            name: entry for name, entry in unlearn.entries().items() if entry["method"] == method
        }
    name = method.value if method in found else next(iter(found))
    entry = found[name]
    if unknown := sorted(parameters.keys() - (entry.keys() - {"method", "data_access"})):
        raise params.ParameterError(
            f"parameters: {method} has no {unknown[0]!r}, only "
            f"{', '.join(entry.keys() - {'method', 'data_access'}) or 'nothing to set'}"
        )
    return name, entry | parameters
