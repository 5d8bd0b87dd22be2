"""``python -m tasks.graph ARGUMENTS``: DVC itself, ending with the process that called it.

python -m tasks.graph restore NAME      a stage's outputs from DVC's cache and remote (``restore``)
python -m tasks.graph stage NAME        bring one stage up to date, saying what it says, and errors
python -m tasks.graph stage-again NAME  the same, even if nothing changed
"""

import sys
from pathlib import Path

from tasks.starting.warm import start

ABSENT = 4  # exit status: neither cache nor remote has the outputs


def main(arguments: list[str]) -> int:
    match arguments:
        case ["restore", name]:
            from tasks.graph.stages import restore

            return 0 if restore(Path.cwd(), name) else ABSENT
        case ["stage" | "stage-again" as how, name]:
            from dvc.exceptions import DvcException

            from tasks.graph.stages import reproduce

            try:
                reproduce(Path.cwd(), name, force=how == "stage-again")
            except (DvcException, OSError) as error:
                print(f"ERROR: {_chain(error)}", file=sys.stderr)
                return 1
            return 0
    from dvc.cli import main as dvc

    status: int = dvc(arguments)
    return status


def _chain(error: BaseException) -> str:
    """What an error says, and what each that it came from says."""
    cause = f": {_chain(error.__cause__)}" if error.__cause__ else ""
    return f"{error}{cause}"


if __name__ == "__main__":
    sys.exit(start("tasks.graph.__main__", sys.argv[1:]))
