"""Any folder of images: ``<class>/**/<image>``, the layout of torchvision's ``ImageFolder``.

Or ``train/<class>/**/<image>`` beside ``test`` or ``val``, or both, of the same form: what was set
apart by the authors (``NAMED_PARTS``: how else they may be called). What is hidden is passed over,
and, with a note, files that are no images.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from imu.datasets import LabelledImages, Source, named
from imu.datasets.common import decoding, listing, packed

NAME = "image_folder"
OF_THE_USER = True


def write(folder: Path, source: Source) -> None:
    """Decode the images below ``source.path`` to size×size pixels, RGB, and pack them.

    The training images come first; within a part they are sorted by class and path. An id is the
    path below ``source.path``.

    Raises FileNotFoundError when there is no such folder. Raises ValueError, naming the folder or
    the file, when there are fewer than two classes, a class is empty, the classes of the parts
    differ, there are other folders beside the parts, a link leads back to where it lies, or an
    image cannot be read.
    """
    root = Path(source.path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} to take images from")
    listed = list(_listed(root))
    notes = Counter(
        f"files passed over, {ascii(path.suffix.lower())[1:-1] or 'without a suffix'}"
        for path in set(_files_below(root)) - {image.path for image in listed}
    )
    given = {text for image in listed for text in image.path.relative_to(root).parts}
    notes[listing.RENAMED] = sum(text != named(text) for text in given)
    listing.pack(folder, NAME, listed, source, notes)


def load(folder: Path) -> LabelledImages:
    """Read what ``write`` wrote; images (n, 3, size, size). Raises as ``packed.load`` does."""
    return packed.load(folder, NAME)


def _listed(root: Path) -> Iterator[listing.Listed]:
    parts = _parts(root)
    classes = {place: _classes(place) for place in parts}
    train = next(iter(parts))
    for place in parts:
        for one, other in ((place, train), (train, place)):
            if missing := sorted(classes[other].keys() - classes[one].keys()):
                raise ValueError(
                    f"{one} has no folder {missing[0]!r}, which {other} has: all parts must have "
                    "the same classes"
                )
    for place, part in parts.items():
        for label, folders in sorted(classes[place].items()):
            for path in (path for folder in folders for path in _images_below(folder)):
                name = named(path.relative_to(root).as_posix())
                yield listing.Listed(path, str(path), name, label, part)


def _parts(root: Path) -> dict[Path, str]:
    """Folder -> part, training part first; ``root`` alone where there are none."""
    meant = {
        name: listing.NAMED_PARTS[name.lower()]
        for name in _folders(root)
        if name.lower() in listing.NAMED_PARTS and _folders(root / name)
    }
    if len(meant) < 2:
        return {root: "train"}
    names = ", ".join(map(repr, meant))
    if more := sorted(set(_folders(root)) - meant.keys()):
        raise ValueError(
            f"{root} has the parts {names}, and {more[0]!r} beside them, which is none: move it "
            "elsewhere"
        )
    parts = sorted(meant.values(), key=listing.PARTS.index)
    if "train" not in parts or len(set(parts)) < len(parts):
        raise ValueError(
            f"{root} has the parts {names}: there must be one of training, and at most one each of "
            "validation and test"
        )
    return {root / name: meant[name] for name in sorted(meant, key=lambda n: parts.index(meant[n]))}


def _classes(place: Path) -> dict[str, list[Path]]:
    """Class -> its folders: several where their names read the same."""
    found: dict[str, list[Path]] = {}
    for name in _folders(place):
        found.setdefault(named(name), []).append(place / name)
    if len(found) < 2:
        raise ValueError(
            f"{place} must have a folder of images for each of 2 or more classes, "
            f"it has {', '.join(map(repr, found)) or 'none'}"
        )
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    found = sorted(p for p in _files_below(folder) if p.name.lower().endswith(decoding.SUFFIXES))
    if not found:
        raise ValueError(
            f"{folder} holds no image: remove it, or put in files that end in "
            f"{', '.join(decoding.SUFFIXES)}"
        )
    return found


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """above: the folders that lead here, links followed."""
    found, here = list[Path](), folder.resolve()
    if here in above:
        raise ValueError(f"{folder} is a link to a folder in which it lies itself: remove it")
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += _files_below(path, (*above, here))
        elif path.is_file() or path.is_symlink():  # a pipe would be waited for
            found.append(path)
    return found
