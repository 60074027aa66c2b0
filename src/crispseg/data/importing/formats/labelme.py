"""Labelme: one JSON a picture, of polygons, rectangles, circles and masks; the picture beside it, elsewhere, or
inside it.

A ``labels.txt`` or ``class_names.txt`` beside them gives the order of the classes. Lines and points cover nothing.
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np

from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, both_ends, read_json, read_text, ring
from crispseg.data.importing.painting import BadShapeError, Draw, Shape
from crispseg.data.importing.pictures import inner_picture
from crispseg.data.importing.records import Dropped, Entry, Source, split_of
from crispseg.errors import DataError


def recognise(tree: Tree) -> str | None:
    """Return the file that says it is Labelme."""
    found = _files(tree, first=True)
    return str(found[0].relative_to(tree.root)) if found else None


def _files(tree: Tree, *, first: bool = False) -> list[Path]:
    found = []
    for path in tree.ending(".json"):
        ends = b"".join(both_ends(path))
        if b'"shapes"' in ends and (b'"imagePath"' in ends or b'"imageData"' in ends or b'"imageHeight"' in ends):
            found.append(path)
            if first:
                break
    return found


def read(tree: Tree) -> Source:
    """Read every JSON of Labelme below the source."""
    dropped, entries, seen = Dropped(), [], set()
    for path in _files(tree):
        try:
            entry = _entry(tree, path, dropped)
        except DataError as error:
            dropped.add(path, error)
            continue
        if entry:
            entries.append(entry)
            seen |= {shape.name for shape in entry.shapes}
    listed: list[str] = []
    for path in tree.ending("labels.txt", "class_names.txt"):
        listed += [line.strip() for line in read_text(path).splitlines() if line.strip() and line.strip() not in listed]
    names = [*listed, *sorted(seen - set(listed))]
    taken = {entry.image for entry in entries}
    for path in tree.pictures():
        if path not in taken:
            dropped.add(path, "no JSON of Labelme is of this picture")
    return Source("labelme", entries, dict.fromkeys(names), True, dropped)


def _entry(tree: Tree, path: Path, dropped: Dropped) -> Entry | None:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("expected an object with shapes")
    data, name = None, content.get("imagePath")
    image = tree.find(name, path.parent) if isinstance(name, str) and name else "it names no picture"
    if isinstance(image, str):
        if not isinstance(content.get("imageData"), str):
            dropped.add(path, f"{image}, and the JSON holds no imageData")
            return None
        try:
            data = base64.b64decode(content["imageData"])
        except (ValueError, binascii.Error):
            dropped.add(path, f"{image}, and its imageData is not base64")
            return None
        image = path
    shapes = []
    for i, shape in enumerate(content["shapes"]):
        try:
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
                raise BadShapeError("expected a shape with a label")
            shapes.append(Shape(shape["label"].strip(), _draw(shape)))
        except BadShapeError as error:
            dropped.add(f"{path}: shape {i}", error)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Entry(image, tuple(shapes), split=split_of(*path.relative_to(tree.root).parts[:-1]), size=size, data=data)


def _draw(shape: dict[str, Any]) -> Draw:
    kind = shape.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in SHAPES:
        raise BadShapeError(f"a {kind} covers no area" if str(kind) in _THIN else f"no shape {kind!r} is known")
    return SHAPES[kind](ring(shape.get("points") or []), shape)


def _rectangle(points: Any, _: Any) -> Draw:
    if len(points) == 2:
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return painting.box(left, top, right, bottom)
    return painting.polygon([[points]])


def _circle(points: Any, _: Any) -> Draw:
    if len(points) != 2:
        raise BadShapeError(f"expected a circle's centre and a point on it, found {len(points)} points")
    (x, y), (rim_x, rim_y) = points
    radius = math.hypot(rim_x - x, rim_y - y)
    return painting.ellipse(x, y, radius, radius)


def _mask(points: Any, shape: dict[str, Any]) -> Draw:
    if not isinstance(shape.get("mask"), str):
        raise BadShapeError("expected a mask, a PNG as base64")
    bits = np.array(inner_picture(shape["mask"])) > 0
    left, top = (round(float(min(1e9, max(-1e9, v)))) for v in points[0])
    return painting.bitmap(bits[..., 0] if bits.ndim == 3 else bits, left, top)


_THIN = ("line", "linestrip", "point", "points")
SHAPES: dict[str, Any] = {
    "polygon": lambda points, _: painting.polygon([[points]]),
    "oriented_rectangle": lambda points, _: painting.polygon([[points]]),
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
}
