"""``python -m tasks.graph ARGUMENTS``: DVC itself, ending with the process that called it."""

import sys

from tasks.starting.warm import start


def main(arguments: list[str]) -> int:
    from dvc.cli import main as dvc

    status: int = dvc(arguments)
    return status


if __name__ == "__main__":
    sys.exit(start("tasks.graph.__main__", sys.argv[1:]))
