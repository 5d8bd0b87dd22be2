"""Try the ideas of docs/research.yaml where it says: docs/research.md and research-*.csv.

python -m research                    every trial
python -m research --trials digits    not in the others
"""

import sys
from pathlib import Path

from flows.pipeline import JOBS
from flows.running.children import warm
from flows.running.failures import EXPLAINED
from flows.running.holding import only_run
from flows.running.server import serving
from research.trials import research
from tasks.starting import calling


def main() -> None:
    parser = calling.parser("research", __doc__)
    parser.add_argument("--trials", nargs="+", default=(), help="of docs/research.yaml; none: all")
    parser.add_argument("--jobs", type=int, default=JOBS, help="stages at the same time")
    arguments = parser.parse_args()
    root = Path.cwd()
    try:
        with only_run(root), warm(root), serving() as ready:
            ready()
            research(root, arguments.jobs, arguments.trials)
    except EXPLAINED as error:
        sys.exit(f"research failed: {error}")


if __name__ == "__main__":
    main()
