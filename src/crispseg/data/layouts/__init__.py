"""Where each data set keeps its images and labels: one module a layout, with ``classes``, ``splits`` and ``files``."""

from pathlib import Path
from typing import Protocol

from crispseg.data.classes import ClassSet
from crispseg.data.layouts import ade20k, cityscapes, folder, voc
from crispseg.data.samples import Sample, Split, pair
from crispseg.errors import DataError, UsageError, nearest
from crispseg.names import stays_inside


class Layout(Protocol):
    """What the module of a layout offers; ``root`` is a folder that exists."""

    def classes(self, root: Path) -> ClassSet:
        """The classes of the data set."""

    def splits(self, root: Path) -> list[str]:
        """The labelled splits that are there, training first."""

    def files(self, root: Path, split: str) -> Split:
        """The images and labels of a split, paired or not. Raises ``DataError`` if a folder is missing."""


LAYOUTS: dict[str, Layout] = {"folder": folder, "cityscapes": cityscapes, "ade20k": ade20k, "voc": voc}


def find_samples(root: str | Path, split: str, layout: str = "folder") -> tuple[list[Sample], ClassSet]:
    """Return the samples of a split, sorted by name, and the classes. No picture is opened.

    ``layout``: ``"folder"`` is ``images/<split>/NAME.*``, ``labels/<split>/NAME.png`` and ``classes.json``;
    ``"cityscapes"``, ``"ade20k"`` and ``"voc"`` are the folders that these data sets come in. Raises ``DataError`` if a
    folder is missing, the split is empty, or an image or a label has no partner; ``UsageError`` for an unknown layout,
    or a split that would lie outside ``root``.
    """
    chosen = choose_layout(root, layout)
    if not stays_inside(split):
        raise UsageError(f"expected the name of a split, a folder or list in {root}, found {split!r}")
    found = chosen.files(Path(root), split)
    return pair(found), chosen.classes(Path(root))


def choose_layout(root: str | Path, layout: str) -> Layout:
    """Return the layout of that name. Raises as :func:`find_samples` if there is none, or no folder ``root``."""
    if layout not in LAYOUTS:
        raise UsageError(f"no data layout {layout!r}{nearest(layout, LAYOUTS)}")
    if not Path(root).is_dir():
        found = "a file" if Path(root).exists() else "nothing"
        raise DataError(f"{root}: expected the folder of a data set, found {found}")
    return LAYOUTS[layout]


def guess_layout(root: str | Path) -> str:
    """Return the name of the layout that ``root`` seems to have; ``"folder"`` if it looks like none of the others."""
    others = (name for name in LAYOUTS if name != "folder")
    return next((name for name in others if LAYOUTS[name].splits(Path(root))), "folder")
