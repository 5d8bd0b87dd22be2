"""docs/gpu.md, from the results of runs, which are kept in docs/gpu.jsonl.

python -m benchmarks.gpu.page results/results.jsonl

Of several runs on one kind of machine, the last one with a check counts for it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.__main__ import MACHINE, UNPACKING, checks
from benchmarks.gpu.lab import Record, read, table

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "gpu.jsonl", DOCS / "gpu.md"


def joined(runs: Sequence[list[Record]]) -> list[Record]:
    """The results of the first run, with checks of later ones in place of its own.

    Raises ValueError where two ran on different machines or with different packages.
    """
    results, *later = runs
    for run in later:
        first, begin = began(results), began(run)
        for what in ("device", "processor", "packages", "tiny"):
            if first[what] != begin[what]:
                raise ValueError(f"{what}: one run has {first[what]!r}, another {begin[what]!r}")
        chosen = {record["check"] for record in run} - {MACHINE, UNPACKING}
        kept = [record for record in results if record["check"] not in chosen]
        results = kept + [record for record in run if record["check"] in chosen]
    return results


def began(results: list[Record]) -> Record:
    return next(record for record in results if record.get("what") == "begin")


def page(results: list[Record]) -> str:
    begin = began(results)
    ended = {record["check"]: record for record in results if "ended" in record}
    parts = ["# GPU\n", warning(begin), provenance(begin, results), times(results, ended)]
    for name, module in checks().items():
        found = [r for r in results if r["check"] == name and "ended" not in r]
        subject = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"## {name.capitalize()}\n\n{subject}\n")
        if "log" in ended.get(name, {}):
            log = "\n".join(ended[name]["log"])
            parts.append(f"Ended: {ended[name]['ended']}. Its log:\n\n```text\n{log}\n```\n")
        parts.append(module.page(found) if found else "No results.\n")
    return "\n".join(parts)


def warning(begin: Record) -> str:
    """What the numbers are not."""
    said = []
    if begin["device"] is None:
        said.append("no GPU was in use, every number is of a CPU")
    if begin["tiny"]:
        said.append("networks, images and numbers of steps are tiny")
    if not said:
        return ""
    return (
        f"**A rehearsal: {' and '.join(said)}. Nothing below but the estimates says anything of a "
        "GPU; what it shows is that the command runs.**\n"
    )


def provenance(begin: Record, results: list[Record]) -> str:
    device = "no GPU"
    if begin["device"] is not None:
        device = f"{begin['device']} ({begin['memory'] / 2**30:.0f} GiB), CUDA {begin['cuda']}"
    packages = ", ".join(f"{name} {version}" for name, version in begin["packages"].items())
    unpacked = next((r for r in results if r["check"] == UNPACKING and "images" in r), None)
    images = "no photographs: images are drawn at random around one colour per class"
    if unpacked is not None:
        images = (
            f"CIFAR-10 as JPEG of quality 75, which costs a little accuracy: {unpacked['what']}, "
            f"{unpacked['images']:,} images, unpacked in {unpacked['unpacking']:.1f} s and decoded "
            f"in {unpacked['decoding']:.1f} s beside the first check"
        )
    return (
        f"Written by `python -m benchmarks.gpu.page` from what `python -m benchmarks.gpu "
        f"--minutes {begin['minutes']:g}{' --tiny' if begin['tiny'] else ''}` measured; do not "
        f"edit. Date: {begin['date']}. Machine: {device}; {begin['processor']}, {begin['cores']} "
        f"cores; Python {begin['python']}, {packages}. Data: {images}. Algorithms are "
        "deterministic where nothing else is said.\n"
    )


def times(results: list[Record], ended: dict[str, Record]) -> str:
    """Of the checks, and what was estimated beforehand."""
    plan = next(record["parts"] for record in results if record.get("what") == "plan")
    rows = []
    for name in checks():
        parts = [part for part in plan if part[0] == name]
        took = ended.get(name)
        rows.append(
            (
                name,
                f"{sum(part[2] for part in parts):.0f}",
                f"{took['seconds']:.1f}" if took else "",
                took["ended"] if took else "not started",
            )
        )
    estimates = [(name, what, f"{seconds:.1f}", how) for name, what, seconds, how in plan]
    return "\n".join(
        [
            "## Time\n",
            table(("check", "estimated, s", "took, s", "ended"), rows),
            "Estimated before the run, for an H100 or H200 and full sizes, from operations that "
            "were counted and rates that are assumed; a check that needs more is cut short:\n",
            table(("check", "part", "s", "how"), estimates),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.page", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "results", nargs="+", type=Path, help="of a run and of others after it, or docs/gpu.jsonl"
    )
    results = joined([read(path) for path in parser.parse_args().results])
    PAGE.write_text(page(results), encoding="utf-8")
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in results)
    RESULTS.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
