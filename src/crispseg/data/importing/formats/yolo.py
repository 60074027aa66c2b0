"""YOLO polygons, as Ultralytics and Roboflow write them: ``data.yaml``, pictures, and ``labels/…/NAME.txt``.

A line is a class and x, y, … in shares of the picture's sides. Holes are cut open by a line that is walked twice, which
the even-odd rule paints exactly. A line of a class and four numbers is a box, which has no outline.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, number, read_text, same
from crispseg.data.importing.painting import BadShapeError, Draw, Patch, Shape
from crispseg.data.importing.records import Dropped, Entry, Source, split_of
from crispseg.errors import DataError
from crispseg.typed import read_yaml

_TABLES = ("classes.txt", "obj.names", "labels.txt")


def recognise(tree: Tree) -> str | None:
    """Return the folder that says it is YOLO."""
    for path in tree.ending(".txt"):
        if _is_of_labels(path) or (_yaml(tree) and path.stem in _stems(tree)):
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


def _is_of_labels(path: Path) -> bool:
    return path.name not in _TABLES and any(part.lower() == "labels" for part in path.parts[:-1])


def _yaml(tree: Tree) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in tree.ending(".yaml", ".yml"):
        try:
            content = read_yaml(path)
        except DataError:  # a tool's that is not ours
            continue
        if isinstance(content, dict) and "names" in content:
            found.append((path, content))
    return found


def read(tree: Tree) -> Source:
    """Read the pictures below the source, each with its lines or, without a file of them, as background."""
    dropped, entries = Dropped(), []
    names = _names(tree)
    partners = _partners(tree)
    if not partners:
        raise DataError(f"{tree.root}: expected polygons in labels/…/NAME.txt, found no file of a picture's name")
    most = -1
    for image in tree.pictures():
        lines = partners.get(image)
        shapes = []
        if isinstance(lines, str):
            dropped.add(image, lines)
            continue
        if lines is not None:
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
    used = set(partners.values())
    for path in tree.ending(".txt"):
        if path not in used and _is_of_labels(path):
            dropped.add(path, "no picture of its name, or several")
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
    for _, content in _yaml(tree):
        found = content["names"]
        if isinstance(found, dict):
            by_index = {int(key): name for key, name in found.items() if str(key).isdecimal() and int(key) < 255}
            return [str(by_index.get(i, f"class_{i}")) for i in range(max(by_index, default=-1) + 1)]
        if isinstance(found, list):
            return [str(name) for name in found]
    for path in tree.files:
        if path.name in _TABLES:
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return []


def _partners(tree: Tree) -> dict[Path, Path | str]:
    """The file of lines of each picture that has one, or why it is not known.

    It lies beside the picture, or where ``images`` in the picture's path is ``labels``; else it is the one file of the
    picture's name that no other picture has.
    """
    texts: dict[str, list[Path]] = {}
    for path in tree.ending(".txt"):
        if path.name not in _TABLES:
            texts.setdefault(same(path.stem), []).append(path)
    found: dict[Path, Path | str] = {}
    for image in tree.pictures():
        own = _folders(tree, image)
        swapped = {(*own[:i], "labels", *own[i + 1 :]) for i, part in enumerate(own) if part == "images"}
        for path in texts.get(same(image.stem), []):
            if _folders(tree, path) in {own, *swapped}:
                found[image] = path
    taken = set(found.values())
    count = Counter(same(image.stem) for image in tree.pictures() if image not in found)
    for image in tree.pictures():
        left = [path for path in texts.get(same(image.stem), []) if path not in taken]
        if image in found or not left:
            continue
        alone = len(left) == 1 and count[same(image.stem)] == 1
        found[image] = left[0] if alone else f"which file of its name has its polygons is not clear: {left[0]}, …"
    return found


def _folders(tree: Tree, path: Path) -> tuple[str, ...]:
    inside = path.relative_to(tree.root) if path.is_relative_to(tree.root) else path
    return tuple(part.lower() for part in inside.parts[:-1])


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
