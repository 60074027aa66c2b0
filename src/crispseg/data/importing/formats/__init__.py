"""The formats: one module each, in one table. A reader says whether it knows a folder, and reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from crispseg.data.importing.files import Tree
from crispseg.data.importing.formats import coco, cvat, labelme, masks, supervisely, yolo
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
    "cvat": Reader("CVAT", cvat.recognise, cvat.read),
    "supervisely": Reader("Supervisely", supervisely.recognise, supervisely.read),
    "yolo": Reader("YOLO polygons", yolo.recognise, yolo.read),
    "masks": Reader("pictures with masks", masks.recognise, masks.read, takes_table=True),
}


def recognise(tree: Tree) -> tuple[str, str] | None:
    """Return the name of the first format that knows ``tree``, and the file or folder that says so."""
    for name, reader in READERS.items():
        if sign := reader.recognise(tree):
            return name, sign
    return None
