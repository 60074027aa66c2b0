"""Cityscapes: ``leftImg8bit/<split>/CITY/NAME_leftImg8bit.png`` and ``gtFine/<split>/CITY/NAME_gtFine_labelIds.png``.

The 34 ids of the label files are mapped to the 19 classes of the benchmark, all others to void. ``*_labelTrainIds.png``
are read as they are where a split has no ``*_labelIds.png``. Polygons, colours and instances are left alone.
"""

from collections.abc import Callable
from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import PNG, Split, by_name
from crispseg.errors import DataError

# The id of each of the 19 classes, in their order (cityscapesScripts, labels.py).
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_VOID = 255
# −1 (licence plate) is stored as 255; ids from 34 to 254 do not exist.
_FROM_IDS = tuple(_IDS.index(i) if i in _IDS else _VOID if i < 34 or i == 255 else -1 for i in range(256))


def classes(root: Path) -> ClassSet:
    """Return the 19 classes of the benchmark."""
    return read_classes(Path(__file__).with_name("cityscapes.json"))


def splits(root: Path) -> list[str]:
    """Return those of train and val that are there; the labels of test are blank."""
    return [split for split in ("train", "val") if (root / "leftImg8bit" / split).is_dir()]


def files(root: Path, split: str) -> Split:
    """Return the files of ``split`` (train, val, test)."""
    image_folder, label_folder = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; Cityscapes has leftImg8bit/{split} and gtFine/{split} in {root}"
            )
    ending, mapping = "_gtFine_labelIds", _FROM_IDS
    labels = by_name(label_folder, _without(ending), PNG)
    if not labels and (labels := by_name(label_folder, _without("_gtFine_labelTrainIds"), PNG)):
        ending, mapping = "_gtFine_labelTrainIds", ()
    images = by_name(image_folder, _without("_leftImg8bit"), PNG)
    patterns = f"{image_folder}/{{}}_leftImg8bit.png", f"{label_folder}/{{}}{ending}.png"
    return Split(images, labels, *patterns, mapping or None)


def _without(ending: str) -> Callable[[str], str | None]:
    return lambda name: name.removesuffix(ending) if name.endswith(ending) else None
