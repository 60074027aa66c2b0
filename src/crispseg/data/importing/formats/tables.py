"""What the colours or values of masks mean: tables as tools write them beside the masks.

CVAT's ``labelmap.txt`` (name:r,g,b:parts:actions), Roboflow's ``_classes.csv`` (value, name), ``class_dict.csv``
(name,r,g,b), CamVid's ``label_colors.txt`` (r g b name), names alone, one a line, and JSON: ``{"name": [r, g, b]}`` or
``classes.json``.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crispseg.data.classes import Colour
from crispseg.data.importing.files import Tree, read_json, read_text
from crispseg.errors import DataError

KNOWN = (
    "labelmap.txt", "_classes.csv", "class_dict.csv", "label_colors.txt", "class_names.txt", "classes.json",
    "colors.json", "classes.txt", "labels.txt",
)  # fmt: skip
_RGB = r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})"
_LINES = (
    ("colour last", re.compile(rf"(?P<name>[^:,;\t]+?)\s*[:,;\t ]\s*{_RGB}(?:\s*:.*)?")),
    ("colour first", re.compile(rf"{_RGB}[\s,;]+(?P<name>\S.*)")),
    ("value", re.compile(r"(?P<value>\d{1,3})\s*[,;:\t ]\s*(?P<name>\S.*)")),
)


@dataclass
class Table:
    """The classes by name, in order: their colours, or (``values``) the values that they have in masks."""

    colours: dict[str, Colour | None] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)

    @property
    def coloured(self) -> bool:
        """Whether every class has a colour."""
        return bool(self.colours) and all(colour is not None for colour in self.colours.values())


def find_table(tree: Tree, path: Path | None) -> Table | None:
    """Read the table at ``path``, or the first known one below the source."""
    if path is not None:
        return read_table(path)
    for name in KNOWN:
        for file in tree.files:
            if file.name == name:
                return read_table(file)
    return None


def read_table(path: Path) -> Table:
    """Read a table of classes. DataError, naming the file, if it is none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    table = Table()
    if path.suffix.lower() == ".json":
        _read_json(read_json(path), table, path)
    else:
        for line in read_text(path).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _read_line(line.strip(), table)
    if not table.colours:
        raise DataError(
            f"{path}: expected the classes, such as `road: 128,64,128` or `1, road`, one a line; found none"
        )
    return table


def _read_json(content: Any, table: Table, path: Path) -> None:
    if isinstance(content, dict) and isinstance(content.get("classes"), list):
        palette = content.get("palette") or []
        for i, name in enumerate(content["classes"]):
            table.colours[str(name)] = _colour(palette[i]) if i < len(palette) else None
            table.values[i] = str(name)
    elif isinstance(content, dict):
        for name, colour in content.items():
            table.colours[str(name)] = _colour(colour)
    elif isinstance(content, list):
        for entry in content:
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                table.colours[entry["name"]] = _colour(entry.get("color", entry.get("colour")))
    else:
        raise DataError(f"{path}: expected names with colours")


def _read_line(line: str, table: Table) -> None:
    for kind, pattern in _LINES:
        if found := pattern.fullmatch(line):
            name = found["name"].strip()
            if kind == "value":
                table.values[int(found["value"])] = name
                table.colours.setdefault(name, None)
            else:
                table.colours.setdefault(name, _colour([int(c) for c in found.groups() if c != found["name"]]))
            return
    if not re.search(r"(?i)pixel value|name\s*,\s*r\b", line):
        table.values[len(table.values)] = line
        table.colours.setdefault(line, None)


def _colour(value: Any) -> Colour | None:
    good = isinstance(value, list) and len(value) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in value)
    return (value[0], value[1], value[2]) if good else None
