"""The formats: one module each, in one table. A reader says whether it knows a folder, and reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crispseg.data.importing.files import Tree
from crispseg.data.importing.formats import coco, labelme
from crispseg.data.importing.records import Source


@dataclass(frozen=True)
class Reader:
    """``recognise(tree)`` returns what says that it is this format, or None; ``read(tree)`` reads it."""

    title: str
    recognise: Callable[[Tree], str | None]
    read: Callable[..., Source]
    takes_table: bool = False


READERS: dict[str, Reader] = {
    "coco": Reader("COCO", coco.recognise, coco.read),
    "coco_panoptic": Reader("COCO panoptic", coco.recognise_panoptic, coco.read_panoptic),
    "labelme": Reader("Labelme", labelme.recognise, labelme.read),
}


def recognise(tree: Tree) -> tuple[str, str] | None:
    """Return the name of the first format that knows ``tree``, and the file or folder that says so."""
    for name, reader in READERS.items():
        if sign := reader.recognise(tree):
            return name, sign
    return None


__all__: list[Any] = ["READERS", "Reader", "recognise"]
