"""Supervisely: ``meta.json`` of the project, ``DATASET/img/NAME`` and ``DATASET/ann/NAME.json``.

Polygons with holes, bitmaps (base64 of a zipped PNG) and rectangles; titles and colours are those of meta.json. Objects
further down the list lie on top in Supervisely; here the larger lies below, as in every format without layers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, number, read_json, ring
from crispseg.data.importing.formats.cvat import colour
from crispseg.data.importing.painting import BadShapeError, Draw, Shape
from crispseg.data.importing.pictures import inner_picture
from crispseg.data.importing.records import Dropped, Entry, Source, split_of
from crispseg.errors import DataError


def recognise(tree: Tree) -> str | None:
    """Return the file that says it is Supervisely."""
    metas = [path for path in tree.files if path.name == "meta.json"]
    return str(metas[0].relative_to(tree.root)) if metas and any(_annotations(tree)) else None


def _annotations(tree: Tree) -> list[Path]:
    return [path for path in tree.ending(".json") if path.parent.name == "ann"]


def read(tree: Tree) -> Source:
    """Read a project, all of its data sets."""
    dropped, entries, names = Dropped(), [], dict[str, Any]()
    for meta in (path for path in tree.files if path.name == "meta.json"):
        content = read_json(meta)
        for kind in _list(content, "classes"):
            if isinstance(kind, dict) and isinstance(kind.get("title"), str):
                names.setdefault(kind["title"], colour(str(kind.get("color"))))
    for path in _annotations(tree):
        try:
            content = read_json(path)
            if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
                raise DataError("expected an object with objects")
        except DataError as error:
            dropped.add(path, error)
            continue
        image = tree.find(path.name.removesuffix(".json"), path.parent.parent / "img", ["img"])
        if isinstance(image, str):  # an older project: NAME.json of NAME.jpg
            same = [p for p in tree.pictures() if p.parent == path.parent.parent / "img" and p.stem == path.stem]
            if not same:
                dropped.add(path, image)
                continue
            image = same[0]
        shapes = _shapes(content["objects"], path, names, dropped)
        tags = [tag.get("name", "") for tag in _list(content, "tags") if isinstance(tag, dict)]
        size = content.get("size")
        sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
        known = (sides[0], sides[1]) if isinstance(sides[0], int) and isinstance(sides[1], int) else None
        split = split_of(*map(str, tags), path.parent.parent.name)
        entries.append(Entry(image, tuple(shapes), split=split, size=known))
    return Source("supervisely", entries, names, True, dropped)


def _list(content: Any, key: str) -> list[Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _shapes(objects: list[Any], path: Path, names: dict[str, Any], dropped: Dropped) -> list[Shape]:
    shapes = []
    for i, thing in enumerate(objects):
        try:
            if not isinstance(thing, dict) or not isinstance(thing.get("classTitle"), str):
                raise BadShapeError("expected an object with a classTitle")
            kind = thing.get("geometryType")
            if not isinstance(kind, str) or kind not in SHAPES:
                raise BadShapeError(f"a {kind} covers no area that is read")
            draw = SHAPES[kind](thing)
            names.setdefault(thing["classTitle"], None)
            shapes.append(Shape(thing["classTitle"], draw))
        except BadShapeError as error:
            dropped.add(f"{path}: object {i}", error)
    return shapes


def _points(thing: dict[str, Any]) -> tuple[Any, list[Any]]:
    points = thing.get("points")
    if not isinstance(points, dict):
        raise BadShapeError("expected points")
    return ring(points.get("exterior")), [ring(hole) for hole in points.get("interior") or []]


def _polygon(thing: dict[str, Any]) -> Draw:
    """Its points are pixels, counted from the middle of the first: the border runs through their centres."""
    exterior, holes = _points(thing)
    return painting.polygon([[exterior, *holes]])


def _rectangle(thing: dict[str, Any]) -> Draw:
    exterior, _ = _points(thing)
    (left, top), (right, bottom) = exterior.min(0), exterior.max(0)
    return painting.box(left, top, right, bottom)


def _bitmap(thing: dict[str, Any]) -> Draw:
    inside = thing.get("bitmap")
    if not isinstance(inside, dict) or not isinstance(inside.get("data"), str):
        raise BadShapeError("expected a bitmap with data")
    picture = inner_picture(inside["data"], zipped=True)
    pixels = np.array(picture.convert("RGBA") if picture.mode in ("P", "LA") else picture)
    if pixels.ndim == 3:
        pixels = pixels[..., -1] if pixels.shape[2] in (2, 4) else pixels.max(-1)
    origin = inside.get("origin")
    if not isinstance(origin, list) or len(origin) != 2:
        raise BadShapeError("expected the origin of a bitmap, [x, y]")
    left, top = (int(min(1e9, max(-1e9, number(value)))) for value in origin)
    return painting.bitmap(pixels > 0, left, top)


SHAPES: dict[str, Any] = {"polygon": _polygon, "rectangle": _rectangle, "bitmap": _bitmap}
