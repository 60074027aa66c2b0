"""YOLO polygons, as Ultralytics and Roboflow write them: ``data.yaml``, pictures, and ``labels/…/NAME.txt``.

A line is a class and x, y, … in shares of the picture's sides. Holes are cut open by a line that is walked twice, which
the even-odd rule paints exactly. A line of a class and four numbers is a box, which has no outline.
"""

from pathlib import Path

import numpy as np

from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, number, read_text
from crispseg.data.importing.painting import BadShapeError, Draw, Patch, Shape
from crispseg.data.importing.records import Dropped, Entry, Source, split_of
from crispseg.errors import DataError
from crispseg.typed import read_yaml

_TABLES = ("classes.txt", "obj.names", "labels.txt")


def recognise(tree: Tree) -> str | None:
    """Return the folder that says it is YOLO."""
    for path in tree.ending(".txt"):
        if ("labels" in path.parts and path.name not in _TABLES) or (_yaml(tree) and path.stem in _stems(tree)):
            words = read_text(path).split("\n", 1)[0].split()
            if len(words) >= 5 and all(_is_number(word) for word in words):
                return str(path.relative_to(tree.root))
    return None


def _stems(tree: Tree) -> set[str]:
    return {path.stem for path in tree.pictures()}


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _yaml(tree: Tree) -> list[Path]:
    return [path for path in tree.ending(".yaml", ".yml") if "names" in (read_yaml(path) or {})]


def read(tree: Tree) -> Source:
    """Read the pictures below the source, each with its lines or, without a file of them, as background."""
    dropped, entries = Dropped(), []
    names = _names(tree)
    texts: dict[str, list[Path]] = {}
    for path in tree.ending(".txt"):
        texts.setdefault(path.stem, []).append(path)
    used: set[Path] = set()
    most = -1
    for image in tree.pictures():
        lines = _partner(tree, image, texts)
        shapes = []
        if lines is not None:
            used.add(lines)
            try:
                numbered = enumerate(read_text(lines).splitlines(), 1)
            except DataError as error:
                dropped.add(lines, error)
                continue
            for i, line in numbered:
                if not line.strip():
                    continue
                try:
                    index, draw = _line(line)
                    most = max(most, index)
                    shapes.append(Shape(str(index), draw))
                except BadShapeError as error:
                    dropped.add(f"{lines}: line {i}", error)
        inside = image.relative_to(tree.root).parts[:-1] if image.is_relative_to(tree.root) else ()
        entries.append(Entry(image, tuple(shapes), split=split_of(*inside)))
    for path in tree.ending(".txt"):
        if path not in used and "labels" in path.parts and path.name not in _TABLES:
            dropped.add(path, "no picture of its name")
    if most > 254:
        raise DataError(f"{tree.root}: expected classes 0…254, found {most}")
    called = [names[i] if i < len(names) else f"class_{i}" for i in range(max(most + 1, len(names)))]
    source = Source("yolo", [], dict.fromkeys(called), True, dropped)
    if len(called) > len(names):
        source.notes.append("no names of the classes are there (data.yaml); --names gives them, in order")
    source.entries = [
        Entry(e.image, tuple(Shape(called[int(s.name)], s.draw) for s in e.shapes), split=e.split) for e in entries
    ]
    return source


def _names(tree: Tree) -> list[str]:
    for path in _yaml(tree):
        found = read_yaml(path)["names"]
        if isinstance(found, dict):
            keys = [key for key in found if isinstance(key, int) and 0 <= key < 255]
            return [str(found.get(i, f"class_{i}")) for i in range(max(keys, default=-1) + 1)]
        if isinstance(found, list):
            return [str(name) for name in found]
    for path in tree.files:
        if path.name in _TABLES:
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return []


def _partner(tree: Tree, image: Path, texts: dict[str, list[Path]]) -> Path | None:
    """The file of lines of a picture: its path with labels in the place of images."""
    wanted = [{"images": "labels"}.get(part, part) for part in image.parts[:-1]]
    for path in texts.get(image.stem, []):
        if list(path.parts[:-1]) in (wanted, list(image.parts[:-1])):
            return path
    return None


def _line(line: str) -> tuple[int, Draw]:
    numbers = [number(word) for word in line.split()]
    if numbers[0] != int(numbers[0]) or numbers[0] < 0:
        raise BadShapeError(f"expected the index of a class first, found {line.split()[0]}")
    if len(numbers) == 5:
        raise BadShapeError("it is a box, which has no outline")
    if len(numbers) < 7 or len(numbers) % 2 == 0:
        raise BadShapeError(f"expected a class and x, y of at least 3 points, found {len(numbers)} numbers")
    ring = np.array(numbers[1:]).reshape(-1, 2)

    def draw(height: int, width: int) -> Patch:
        return painting.polygon([[ring * (width, height)]])(height, width)

    return int(numbers[0]), draw
