"""What every reader gives, whatever the format: pictures with their shapes or their masks, and the classes.

Not here: reading (``formats``), painting, writing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crispseg.data.classes import Colour
from crispseg.data.importing.painting import Shape

Labels = npt.NDArray[np.uint8]
VOID = frozenset({"__ignore__", "ignore", "ignored", "void", "unlabeled", "unlabelled", "dontcare", "don't care"})
BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass
class Dropped:
    """What was left out, and why: (what, why)."""

    entries: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: object, why: object) -> None:
        """Leave ``what`` out."""
        self.entries.append((str(what), str(why)))


@dataclass(frozen=True)
class Entry:
    """A picture: a file, or (``data``) the bytes of one; its shapes, or how its mask is read.

    size: (height, width) that it was annotated at, if that is known.
    mask: given the values of the classes by name, and what to do about a fault, returns the label map.
    """

    image: Path
    shapes: tuple[Shape, ...] = ()
    mask: Callable[[], Labels] | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    data: bytes | None = None


@dataclass
class Source:
    """A data set as its reader found it.

    names: classes in order, each with its colour if the tool has one. void: those of them that count nowhere.
    ground: the class of what nothing was drawn on, None: void. masks: the label maps hold the index in ``names``.
    """

    format: str
    entries: list[Entry]
    names: dict[str, Colour | None]
    ground: bool = True
    dropped: Dropped = field(default_factory=Dropped)
    notes: list[str] = field(default_factory=list)


def split_of(*words: str) -> str | None:
    """Return the split that one of ``words`` names: "train2017", "valid", "instances_val2017"."""
    for word in words:
        for part in "".join(c if c.isalpha() else " " for c in word.lower()).split():
            if part in SPLITS:
                return SPLITS[part]
    return None
