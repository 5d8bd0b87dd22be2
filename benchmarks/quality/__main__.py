"""``python -m benchmarks.quality``: does what is not done yet, and writes the page at the end."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import images
from benchmarks.quality import estimators, oracle, page, truth
from benchmarks.quality.truth import SETTINGS, Setting
from tasks.starting import calling

Unit = tuple[Path, Callable[[], Mapping[str, Any]]]  # where it is kept, and how it is made


def units(settings: list[Setting], kept: Path) -> Iterator[Unit]:
    """In order of worth, so that a page can be written before all is done."""
    scenes = {setting: truth.scene(setting, Path.cwd(), kept) for setting in settings}
    for setting, of in scenes.items():
        for number in range(setting.networks // truth.STACK):
            make = partial(truth.stack, setting, of, number)
            yield kept / setting.key / f"truth-{number}.npz", lambda make=make: make()._asdict()
    for setting, of in scenes.items():
        yield from estimates(setting, of, kept, 0)
        if setting.of_texts:
            continue
        # A class with wrong labels in it is nothing that one asks to be forgotten.
        for scenario in oracle.SCENARIOS[: 1 if setting.flipped else None]:
            yield from cells(setting, of, kept, scenario)
    for number in range(1, estimators.ORIGINALS):
        for setting, of in scenes.items():
            yield from estimates(setting, of, kept, number)


def cells(setting: Setting, of: truth.Scene, kept: Path, scenario: str) -> Iterator[Unit]:
    folder = kept / setting.key
    for number in range(oracle.CELLS):
        make = partial(oracle.compared, setting, of, folder, scenario, number)
        yield folder / f"oracle-{scenario}-{number}.npz", make


def estimates(setting: Setting, of: truth.Scene, kept: Path, number: int) -> Iterator[Unit]:
    course = kept / setting.key / f"course-{number}.npz"
    yield course, partial(estimators.course, setting, of, number)
    for group in estimators.GROUPS:
        ask = partial(estimators.estimated, setting, of, course, group)
        yield course.with_name(f"estimates-{number}-{group}.npz"), ask


def main() -> None:
    parser = calling.parser("benchmarks.quality", __doc__)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then it stops")
    parser.add_argument("--page", action="store_true", help="of what is done, and no more")
    names = [setting.name for setting in SETTINGS]
    parser.add_argument("--only", choices=names, help="one; others stay as the page has them")
    parser.add_argument("--cifar", type=Path, help="archive of CIFAR-10 as images")
    given = parser.parse_args()
    begin = monotonic()
    torch.set_num_threads(1)
    kept = Path.cwd() / ".cells" / "quality"
    kept.mkdir(parents=True, exist_ok=True)
    if given.cifar and not (kept / images.PACKED).exists():
        images.unpack(given.cifar, kept)
    settings = [s for s in SETTINGS if s.images != "cifar" or (kept / images.PACKED).exists()]
    settings = [s for s in settings if given.only in (None, s.name)]
    for path, make in () if given.page else units(settings, kept):
        if path.exists():
            continue
        if monotonic() - begin > 60 * given.minutes:
            print("stopped; to go on, call again")
            return
        started = monotonic()
        found = make()
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, **found)
        unfinished.rename(path)
        print(f"{path.parent.name}/{path.stem}: {monotonic() - started:.1f} s", flush=True)
    page.write(settings, kept, Path.cwd())


if __name__ == "__main__":
    main()
