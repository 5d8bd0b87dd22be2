"""Figures that stand in for photographs of people: drawn from a seed, nobody's likeness.

No benchmark of re-identification may be shipped. This one has the parts of Market-1501, its names
and its protocol, and figures of 32×16 pixels in place of people: what is shown on it is shown on
drawings, which are far easier than photographs and fewer.

A person is a build, hair, skin, a shirt with a pattern of two colours, trousers and perhaps a bag,
drawn independently from short lists, so that people are alike. Each of four cameras has a cast of
colours, a contrast, a background, and looks from its own distance; from one image to the next
stride, arms, place, size, side and light vary, and something may stand in the way.

``source.people`` people: half of them are trained on, ``TRAINED`` images from each camera; the
others are asked for, a query and ``GALLERY`` gallery images from each. In the gallery are as many
distractors as there are people, ``0000``, and half as many junk images, ``-1``. An id is a name of
the form of Market-1501.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imu.datasets import LabelledImages, Source
from imu.datasets.common import people
from imu.datasets.common.people import Sighting

OBJECTIVE = people.OBJECTIVE
NAME = "identities"
HEIGHT, WIDTH = 32, 16
FINER = 2  # points per pixel and side that are drawn, then averaged
CAMERAS, TRAINED, GALLERY = 4, 8, 2
DISTRACTOR, JUNK = "0000", "-1"

SKIN = ((0.95, 0.80, 0.69), (0.80, 0.60, 0.45), (0.55, 0.38, 0.26), (0.36, 0.24, 0.17))
HAIR = ((0.10, 0.08, 0.07), (0.35, 0.22, 0.12), (0.80, 0.66, 0.36), (0.55, 0.55, 0.56))
CLOTH = (
    *((0.85, 0.16, 0.16), (0.93, 0.60, 0.15), (0.92, 0.85, 0.25), (0.20, 0.60, 0.28)),
    *((0.15, 0.60, 0.65), (0.16, 0.30, 0.75), (0.50, 0.22, 0.62), (0.90, 0.50, 0.65)),
    *((0.92, 0.92, 0.90), (0.50, 0.50, 0.50), (0.14, 0.14, 0.16), (0.45, 0.30, 0.18)),
)
TROUSERS = (CLOTH[5], CLOTH[10], CLOTH[9], CLOTH[11], CLOTH[8], (0.35, 0.42, 0.25))
PATTERNS = ("plain", "across", "along", "checks", "half")


@dataclass(frozen=True, kw_only=True)
class Person:
    """Colours are RGB in [0, 1]; lengths are shares of the height of the figure."""

    skin: tuple[float, ...]
    hair: tuple[float, ...]
    shirt: tuple[tuple[float, ...], tuple[float, ...]]
    pattern: str
    trousers: tuple[float, ...]
    bag: tuple[float, ...] | None
    sleeves: bool  # long
    skirt: bool
    breadth: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Camera:
    cast: np.ndarray  # (3,), factor of each colour
    contrast: float
    ground: np.ndarray  # (2, 3), colours of the background, above and below
    distance: float  # factor of the figure's size
    horizon: float  # share of the height


def write(folder: Path, source: Source) -> None:
    """Draw ``source.people`` people; ``source.seed`` decides. Raises as ``people.pack`` does."""
    cast = _cast(source)
    cameras = [_camera(np.random.default_rng([source.seed, 1, c])) for c in range(CAMERAS)]

    def images(seen: Sequence[Sighting]) -> Iterator[np.ndarray]:
        yield np.stack([drawn(cast[s.id], cameras[int(s.camera) - 1], s, source) for s in seen])

    people.pack(
        folder,
        NAME,
        _sightings(source),
        images,
        source=source,
        settings=("people", "seed"),
        notes=Counter({"figures that were drawn, in place of photographs": len(cast)}),
    )


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, 32, 16). Raises as ``packed.load`` does."""
    return people.load(folder, NAME)


def drawn(person: Person, camera: Camera, seen: Sighting, source: Source) -> np.ndarray:
    """An image, uint8 (3, 32, 16)."""
    draw = np.random.default_rng([source.seed, 3, *seen.id.encode()])
    rows, columns = HEIGHT * FINER, WIDTH * FINER
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = (y + 0.5) / rows, (x + 0.5) / columns - 0.5  # y in (0, 1), x in (−½, ½) of the width
    shade = np.where(y < camera.horizon, 0, 1)
    scene = camera.ground[shade] + draw.normal(0, 0.03, (rows, columns, 1))
    size = person.height * camera.distance * draw.uniform(0.93, 1.07)
    foot = draw.uniform(0.93, 0.99) if seen.part != people.JUNK else draw.uniform(1.4, 1.7)
    v = (y - foot) / size + 1  # 0 at the crown, 1 at the feet
    u = (x - draw.uniform(-0.08, 0.08)) / (2 * size) + draw.uniform(-0.06, 0.06) * (v - 0.5)
    if draw.random() < 0.5:
        u = -u
    _figure(scene, person, u, v, draw)
    if draw.random() < 0.15:  # something in the way
        scene[y > draw.uniform(0.72, 0.9)] = camera.ground[1] * 0.6
    lit = np.clip(scene, 0, 1) * camera.cast * draw.uniform(0.85, 1.15)
    seen_as = (lit - 0.5) * camera.contrast + 0.5
    pixels = seen_as.reshape(HEIGHT, FINER, WIDTH, FINER, 3).mean((1, 3))
    pixels += draw.normal(0, 0.03, pixels.shape)
    image: np.ndarray = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8).transpose(2, 0, 1)
    return image


def _figure(
    scene: np.ndarray, person: Person, u: np.ndarray, v: np.ndarray, draw: np.random.Generator
) -> None:
    """Draw onto ``scene`` (rows, columns, 3); u, v: places in the figure, across and down."""
    half, stride, swing = person.breadth, draw.uniform(0, 0.07), draw.uniform(-0.03, 0.07)
    for side in (-1, 1):
        at = side * (0.35 * half + stride * np.clip((v - 0.5) / 0.5, 0, 1))
        leg = (np.abs(u - at) < 0.32 * half) & (v > 0.5) & (v < 0.97)
        scene[leg] = person.trousers
        scene[(np.abs(u - at) < 0.38 * half) & (v >= 0.95) & (v < 1)] = (0.12, 0.10, 0.10)
    if person.skirt:
        scene[(np.abs(u) < half * (0.8 + v - 0.5)) & (v > 0.48) & (v < 0.74)] = person.trousers
        scene[(np.abs(u) < 0.8 * half) & (v >= 0.76) & (v < 0.94) & (np.abs(u) > 0.1 * half)] = (
            person.skin
        )
    first, second = np.array(person.shirt)
    striped = {
        "plain": np.zeros(u.shape, bool),
        "across": np.floor(v / 0.06) % 2 == 0,
        "along": np.floor((u + 10) / (0.35 * half)) % 2 == 0,
        "checks": (np.floor(v / 0.08) + np.floor((u + 10) / (0.5 * half))) % 2 == 0,
        "half": v > 0.36,
    }[person.pattern][..., None]
    cloth = np.where(striped, second, first)
    for side in (-1, 1):
        at = side * (half + swing * np.clip((v - 0.2) / 0.3, 0, 1))
        arm = (np.abs(u - at) < 0.25 * half) & (v > 0.19) & (v < 0.52)
        scene[arm] = person.skin
        covered = arm & (v < (0.48 if person.sleeves else 0.30))
        scene[covered] = cloth[covered]
    trunk = (np.abs(u) < half) & (v > 0.18) & (v < 0.53)
    scene[trunk] = cloth[trunk]
    head = (u / 0.075) ** 2 + ((v - 0.09) / 0.09) ** 2 < 1
    scene[head] = person.skin
    facing = draw.random() < 0.6
    scene[head & (v < (0.06 if facing else 0.13))] = person.hair
    if person.bag:
        scene[(np.abs(u - 1.1 * half) < 0.45 * half) & (v > 0.34) & (v < 0.5)] = person.bag


def _cast(source: Source) -> dict[str, Person]:
    """Id of an image -> whom it shows."""
    one = {
        name: _person(np.random.default_rng([source.seed, 0, number]))
        for number, name in enumerate(_names(source))
    }
    odd = np.random.default_rng([source.seed, 2])  # who passes by, each once
    return {s.id: one[s.person] if s.person in one else _person(odd) for s in _sightings(source)}


def _names(source: Source) -> list[str]:
    return [f"{number:04d}" for number in range(1, source.people + 1)]


def _sightings(source: Source) -> list[Sighting]:
    names, found = _names(source), []

    def see(person: str, camera: int, frame: int, part: str) -> None:
        name = f"{person}_c{camera}s1_{frame:06d}_00"
        found.append(Sighting(name, person, str(camera), part))  # type: ignore[arg-type]

    trained = max(2, source.people // 2)
    for number, person in enumerate(names):
        parts = ["train"] * TRAINED if number < trained else ["gallery"] * GALLERY + ["query"]
        for camera in range(1, CAMERAS + 1):
            for frame, part in enumerate(parts):
                see(person, camera, 100 * number + frame, part)
    for number in range(source.people):
        see(DISTRACTOR, 1 + number % CAMERAS, number, "gallery")
    for number in range(source.people // 2):
        see(JUNK, 1 + number % CAMERAS, number, people.JUNK)
    return found


def _person(draw: np.random.Generator) -> Person:
    def one(colours: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        return colours[int(draw.integers(len(colours)))]

    return Person(
        skin=one(SKIN),
        hair=one(HAIR),
        shirt=(one(CLOTH), one(CLOTH)),
        pattern=PATTERNS[draw.integers(len(PATTERNS))],
        trousers=one(TROUSERS),
        bag=one(CLOTH) if draw.random() < 0.4 else None,
        sleeves=bool(draw.random() < 0.6),
        skirt=bool(draw.random() < 0.25),
        breadth=float(draw.uniform(0.10, 0.14)),
        height=float(draw.uniform(0.82, 0.95)),
    )


def _camera(draw: np.random.Generator) -> Camera:
    return Camera(
        cast=draw.uniform(0.6, 1.15, 3),
        contrast=float(draw.uniform(0.6, 1.1)),
        ground=draw.uniform(0.25, 0.8, (2, 3)),
        distance=float(draw.uniform(0.85, 1.0)),
        horizon=float(draw.uniform(0.25, 0.6)),
    )
