"""ADE20K as the scene parsing benchmark has it (ADEChallengeData2016): ``images/<split>/NAME.jpg`` and
``annotations/<split>/NAME.png``, split training or validation (``train`` and ``val`` are understood).

In the files 0 is everything else and 1…150 are the classes; here 0 becomes void and the classes are 0…149.
"""

from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import PNG, Split, by_name
from crispseg.errors import DataError

_OWN_NAMES = {"train": "training", "val": "validation"}
_VOID = 255
_SHIFT = (_VOID, *range(150))


def classes(root: Path) -> ClassSet:
    """Return the 150 classes of the benchmark."""
    return read_classes(Path(__file__).with_name("ade20k.json"))


def splits(root: Path) -> list[str]:
    """Return those of train and val that are there."""
    return [split for split, own in _OWN_NAMES.items() if (root / "annotations" / own).is_dir()]


def files(root: Path, split: str) -> Split:
    """Return the files of ``split``."""
    split = _OWN_NAMES.get(split, split)
    image_folder, label_folder = root / "images" / split, root / "annotations" / split
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; ADE20K has images/{split} and annotations/{split} in {root}")
    images, labels = by_name(image_folder, str), by_name(label_folder, str, PNG)
    return Split(images, labels, f"{image_folder}/{{}}.jpg", f"{label_folder}/{{}}.png", _SHIFT)
