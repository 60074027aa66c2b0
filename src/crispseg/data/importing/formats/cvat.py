"""CVAT: "CVAT for images" and "CVAT for video", XML of polygons, masks, boxes and ellipses.

``z_order`` is the layer. Names and colours are those of the task's labels. Lines, points, skeletons and tags cover
nothing. CVAT's mask export is Pascal VOC with a ``labelmap.txt``: ``masks``.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from crispseg.data.classes import Colour
from crispseg.data.images import MAX_PIXELS
from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, number, read_xml, ring
from crispseg.data.importing.painting import BadShapeError, Draw, Shape
from crispseg.data.importing.records import Dropped, Entry, Source, split_of
from crispseg.errors import DataError

_THIN = ("polyline", "points", "skeleton", "cuboid")


def recognise(tree: Tree) -> str | None:
    """Return the file that says it is CVAT."""
    found = _files(tree)
    return str(found[0].relative_to(tree.root)) if found else None


def _files(tree: Tree) -> list[Path]:
    found = []
    for path in tree.ending(".xml"):
        with path.open("rb") as file:
            if b"<annotations" in file.read(4096):
                found.append(path)
    return found


def read(tree: Tree) -> Source:
    """Read every XML of CVAT below the source."""
    dropped, entries, names = Dropped(), [], dict[str, Colour | None]()
    for path in _files(tree):
        try:
            root = read_xml(path)
        except DataError as error:
            dropped.add(path, error)
            continue
        for label in root.iter("label"):
            if name := (label.findtext("name") or "").strip():
                names.setdefault(name, colour(label.findtext("color") or ""))
        found = [*_images(tree, path, root, dropped), *_frames(tree, path, root, dropped)]
        entries += found
        for entry in found:
            for shape in entry.shapes:
                names.setdefault(shape.name, None)
    taken = {entry.image for entry in entries}
    for picture in tree.pictures():
        if picture not in taken:
            dropped.add(picture, "no annotation of CVAT is of this picture")
    return Source("cvat", entries, names, True, dropped)


def colour(text: str) -> Colour | None:
    """Return the colour that "#rrggbb" names."""
    found = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text.strip())
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None


def _images(tree: Tree, path: Path, root: Element, dropped: Dropped) -> list[Entry]:
    entries = []
    for image in root.iter("image"):
        name = image.get("name") or ""
        subset = image.get("subset") or ""
        file = tree.find(name, path.parent, [subset])
        if isinstance(file, str):
            dropped.add(f"{path}: image {image.get('id')}", file)
            continue
        shapes = _shapes([(part, part.get("label")) for part in image], f"{path}: {name}", dropped)
        inside = file.relative_to(tree.root).parts[:-1] if file.is_relative_to(tree.root) else ()
        entries.append(Entry(file, tuple(shapes), split=split_of(subset, *inside), size=_size(image)))
    return entries


def _frames(tree: Tree, path: Path, root: Element, dropped: Dropped) -> list[Entry]:
    """The tracks of a video: its frames are pictures named by their number, below its file's folder if any are.

    Of several with one number those count that lie in a folder called as the file is.
    """
    parts: dict[int, list[tuple[Element, str | None]]] = defaultdict(list)
    for track in root.iter("track"):
        for part in track:
            if part.get("outside") != "1" and (part.get("frame") or "").isdecimal():
                parts[int(part.get("frame") or 0)].append((part, track.get("label")))
    if not parts:
        return []
    pictures = tree.pictures()
    numbered: dict[int, list[Path]] = defaultdict(list)
    for file in [file for file in pictures if file.is_relative_to(path.parent)] or pictures:
        if digits := re.search(r"(\d{1,9})$", file.stem):
            numbered[int(digits[1])].append(file)
    entries = []
    for frame, found in sorted(parts.items()):
        files = [file for file in numbered[frame] if path.stem in file.parts[:-1]] or numbered[frame]
        if len(files) != 1:
            why = f"{len(files)} pictures have its number, {files[0]} first" if files else "no picture has its number"
            dropped.add(f"{path}: frame {frame}", why)
            continue
        shapes = _shapes(found, f"{path}: frame {frame}", dropped)
        entries.append(Entry(files[0], tuple(shapes)))
    return entries


def _size(image: Element) -> tuple[int, int] | None:
    height, width = image.get("height") or "", image.get("width") or ""
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() and len(height + width) < 20 else None


def _shapes(parts: list[tuple[Element, str | None]], where: str, dropped: Dropped) -> list[Shape]:
    shapes = []
    for part, label in parts:
        if part.tag == "tag":
            continue
        try:
            if not label:
                raise BadShapeError("it has no label")
            if part.tag not in SHAPES:
                raise BadShapeError(
                    f"a {part.tag} covers no area" if part.tag in _THIN else f"no shape {part.tag!r} is known"
                )
            shapes.append(Shape(label.strip(), SHAPES[part.tag](part), int(number(part.get("z_order", 0)))))
        except BadShapeError as error:
            dropped.add(f"{where}: {part.tag}", error)
    return shapes


def _values(part: Element, *names: str) -> list[float]:
    return [number(part.get(name)) for name in names]


def _polygon(part: Element) -> Draw:
    pairs = [pair.split(",") for pair in (part.get("points") or "").split(";") if pair.strip()]
    return painting.polygon([[ring([[number(word) for word in pair] for pair in pairs])]])


def _box(part: Element) -> Draw:
    left, top, right, bottom = _values(part, "xtl", "ytl", "xbr", "ybr")
    return painting.box(left, top, right, bottom, number(part.get("rotation", 0)))


def _ellipse(part: Element) -> Draw:
    x, y, radius_x, radius_y = _values(part, "cx", "cy", "rx", "ry")
    return painting.ellipse(x, y, radius_x, radius_y, number(part.get("rotation", 0)))


def _mask(part: Element) -> Draw:
    left, top, width, height = (int(value) for value in _values(part, "left", "top", "width", "height"))
    if min(width, height) < 1 or width * height > MAX_PIXELS or max(abs(left), abs(top)) > MAX_PIXELS:
        raise BadShapeError(f"expected a mask of 1 to {MAX_PIXELS} pixels, found {width}×{height}")
    counts = [int(number(word)) for word in (part.get("rle") or "").split(",")]
    return painting.bitmap(painting.counted(counts, (height, width), "C"), left, top)


SHAPES: dict[str, Any] = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}
