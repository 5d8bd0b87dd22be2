"""``python -m tasks.graph ARGUMENTS``: DVC itself, ending with the process that called it.

python -m tasks.graph restore NAME    a stage's outputs from DVC's cache and remote (``restore``)
"""

import sys
from pathlib import Path

from tasks.starting.warm import start

ABSENT = 4  # exit status: neither cache nor remote has the outputs


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["restore"]:
        from tasks.graph.stages import restore

        return 0 if restore(Path.cwd(), arguments[1]) else ABSENT
    from dvc.cli import main as dvc

    status: int = dvc(arguments)
    return status


if __name__ == "__main__":
    sys.exit(start("tasks.graph.__main__", sys.argv[1:]))
