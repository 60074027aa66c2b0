"""What the class indices mean: names, colours and the void value, and the ``classes.json`` that keeps them.

Not here: label files themselves (``labels``), and where a data set's classes come from (``layouts``).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.errors import DataError
from crispseg.files import write_bytes

Colour = tuple[int, int, int]
EXAMPLE = '{"classes": ["background", "road"], "palette": [[0, 0, 0], [128, 64, 128]], "ignore_index": 255}'


@dataclass(frozen=True)
class ClassSet:
    """Names and colours of the classes 0…K−1, and the label value that counts nowhere.

    Raises ``DataError`` if names and palette differ in length, a name comes twice, a colour is no RGB triple of 0…255,
    there are more than 255 classes, or ``ignore_index`` (0…255) is also a class.

    >>> ClassSet(("sky", "road"), ((0, 0, 255), (128, 64, 128))).names[1]
    'road'
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = 255

    def __post_init__(self) -> None:
        k = len(self.names)
        if not 1 <= k <= 255:
            raise DataError(f"expected 1 to 255 classes, found {k}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"expected distinct class names, found {twice[0]!r} more than once")
        if len(self.palette) != k:
            raise DataError(f"expected one colour for each of the {k} classes, found {len(self.palette)}")
        for name, colour in zip(self.names, self.palette, strict=True):
            if len(colour) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in colour):
                raise DataError(f"expected an RGB colour of three integers 0…255 for {name!r}, found {list(colour)}")
        if not k <= self.ignore_index <= 255:
            name = f", which is class {self.names[self.ignore_index]!r}" if 0 <= self.ignore_index < k else ""
            raise DataError(f"expected an ignore_index in {k}…255, above all classes, found {self.ignore_index}{name}")

    def __len__(self) -> int:
        return len(self.names)


def default_palette(k: int) -> tuple[Colour, ...]:
    """Return k distinct colours, black first: Pascal VOC's colour map, in which the bits of the index interleave.

    >>> default_palette(3)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    return tuple(_voc_colour(index) for index in range(k))


def _voc_colour(index: int) -> Colour:
    r, g, b = (sum(((index >> (3 * i + channel)) & 1) << (7 - i) for i in range(3)) for channel in range(3))
    return r, g, b


def read_classes(path: str | os.PathLike[str]) -> ClassSet:
    """Read a ``classes.json``: ``classes`` (or ``names``), and optionally ``palette`` and ``ignore_index`` (255).

    Raises ``DataError``, naming the file, if it is missing, no JSON, or does not describe a :class:`ClassSet`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows begins a file with a mark of its encoding
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it names the classes, for example {EXAMPLE}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected JSON, found {error}") from error
    return decode_classes(text, path)


def decode_classes(text: str, name: object) -> ClassSet:
    """Return the classes that the text of a ``classes.json`` describes. DataError, naming it by ``name``, if none."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{name}: expected JSON, found {error}") from error
    try:
        return _from_json(content)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def write_classes(path: str | os.PathLike[str], classes: ClassSet) -> None:
    """Write a ``classes.json`` that :func:`read_classes` gives back."""
    write_bytes(path, encode_classes(classes))


def encode_classes(classes: ClassSet) -> bytes:
    """Return the file that :func:`write_classes` writes."""
    content = {"classes": classes.names, "palette": classes.palette, "ignore_index": classes.ignore_index}
    return (json.dumps(content, indent=1) + "\n").encode()


def _from_json(content: Any) -> ClassSet:
    names = content.get("classes", content.get("names")) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'expected an object with a list of names under "classes", for example {EXAMPLE}')
    palette = content.get("palette")
    if palette is None:
        palette = default_palette(len(names))
    if not isinstance(palette, list | tuple) or not all(isinstance(colour, list | tuple) for colour in palette):
        raise DataError('expected "palette" to be a list of [red, green, blue]')
    ignore = content.get("ignore_index")
    if ignore is not None and (not isinstance(ignore, int) or isinstance(ignore, bool)):
        raise DataError(f'expected "ignore_index" to be an integer, found {ignore!r}')
    return ClassSet(tuple(names), tuple(tuple(colour) for colour in palette), 255 if ignore is None else ignore)
