"""The project's own layout: ``images/<split>/NAME.*``, ``labels/<split>/NAME.png`` and ``classes.json``.

NAME may contain folders. Files that are no pictures by their suffix, and hidden files, are left alone.
"""

from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import PNG, Split, by_name
from crispseg.errors import DataError

_SIGNS = {"cityscapes": "leftImg8bit", "voc": "JPEGImages", "ade20k": "annotations/training"}


def classes(root: Path) -> ClassSet:
    """Read ``classes.json``."""
    return read_classes(root / "classes.json")


def splits(root: Path) -> list[str]:
    """Return the names of the splits that have a folder of images, in the order train, val, test, others."""
    known = ["train", "val", "test"]
    found = [path.name for path in (root / "images").glob("*") if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name))


def files(root: Path, split: str) -> Split:
    """Return the files of ``split``."""
    image_folder, label_folder = root / "images" / split, root / "labels" / split
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise DataError(_no_folder(folder, root))
    return Split(
        by_name(image_folder, str),
        by_name(label_folder, str, PNG),
        f"{image_folder}/{{}}.*",
        f"{label_folder}/{{}}.png",
    )


def _no_folder(folder: Path, root: Path) -> str:
    for layout, sign in _SIGNS.items():
        if (root / sign).is_dir():
            return f"{folder}: no such folder, but {sign} is there: is this the layout {layout!r}?"
    found = splits(root) if (root / "labels").is_dir() else []
    if folder.parent.name == "images" and found:
        return f"{folder}: no such split; found: {', '.join(found)}"
    from crispseg.data.importing.advice import advice  # which reads tables that layouts hold

    return (
        f"{folder}: no such folder; expected images/<split>/NAME.* and labels/<split>/NAME.png in {root}{advice(root)}"
    )
