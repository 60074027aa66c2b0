"""Where each data set keeps its images and labels. One module a layout; each has ``find(root, split)``."""

from collections.abc import Callable
from pathlib import Path

from crispseg.data.classes import ClassSet
from crispseg.data.layouts import ade20k, cityscapes, folder, voc
from crispseg.data.samples import Sample
from crispseg.errors import DataError, UsageError, nearest

Find = Callable[[Path, str], tuple[list[Sample], ClassSet]]
LAYOUTS: dict[str, Find] = {
    "folder": folder.find,
    "cityscapes": cityscapes.find,
    "ade20k": ade20k.find,
    "voc": voc.find,
}


def find_samples(root: str | Path, split: str, layout: str = "folder") -> tuple[list[Sample], ClassSet]:
    """Return the samples of a split, sorted by name, and the classes. No picture is opened.

    ``layout``: ``"folder"`` is ``images/<split>/NAME.*``, ``labels/<split>/NAME.png`` and ``classes.json``;
    ``"cityscapes"``, ``"ade20k"`` and ``"voc"`` are the folders that these data sets come in. Raises ``DataError`` if a
    folder is missing, the split is empty, or an image or a label has no partner; ``UsageError`` for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"no data layout {layout!r}{nearest(layout, LAYOUTS)}")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: expected the folder of a data set, found {'a file' if root.exists() else 'nothing'}")
    return LAYOUTS[layout](root, split)
