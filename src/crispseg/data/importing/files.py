"""Files of an untrusted source: which there are, which one a name means, and reading them.

A name is looked for among the files below the source, so that none leads elsewhere. XML has no document type (so no
entities), and every file has a largest size.
"""

import contextlib
import json
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from crispseg.data.images import SUFFIXES
from crispseg.data.importing.painting import BadShapeError, Ring
from crispseg.data.samples import files_below
from crispseg.errors import DataError

LARGEST = 2 * 2**30
"""Bytes of an annotation file."""


class Tree:
    """The visible files below ``root``, listed once."""

    def __init__(self, root: Path, more: Path | None = None, most: int | None = None) -> None:
        self.root = root
        self.files: list[Path] = []
        places: set[str] = set()
        for folder in (root, *([more] if more else [])):
            for path in files_below(folder):
                place = os.path.join(os.path.realpath(path.parent), path.name)  # `more` may lie in `root`
                if place in places:
                    continue
                places.add(place)
                self.files.append(path)
                if most is not None and len(self.files) >= most:
                    break
        self._named: dict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            self._named[same(path.name).casefold()].append(path)

    def ending(self, *suffixes: str) -> list[Path]:
        """The files whose name ends so, in lower case."""
        return [path for path in self.files if path.name.lower().endswith(suffixes)]

    def pictures(self) -> list[Path]:
        """The files that are pictures by their suffix."""
        return [path for path in self.files if path.suffix.lower() in SUFFIXES]

    def find(self, name: str, near: Path, prefer: Iterable[str] = (), avoid: Iterable[str] = ()) -> Path | str:
        """Return the file that ``name``, a path of another machine perhaps, means; or why there is none, in words.

        Of several files of that name the one counts whose folders agree with the name's the furthest; then one in a
        folder called as ``prefer`` has it, then one in the folder ``near``, then one below that.
        """
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
        found = self._named.get(same(parts[-1]).casefold(), []) if parts else []
        found = [path for path in found if same(path.name) == same(parts[-1])] or found  # Windows ignores case
        if not found:
            return f"{name!r}: no such file below {self.root}"
        wanted, unwanted = set(prefer), set(avoid)

        def fit(path: Path) -> tuple[int, int, int, int]:
            own = path.parts
            agree = next((i for i, (a, b) in enumerate(zip(reversed(own), reversed(parts))) if a != b), len(parts))
            folders = set(path.relative_to(self.root).parts[:-1] if path.is_relative_to(self.root) else own[:-1])
            return (
                -len(unwanted & folders),
                agree,
                len(wanted & folders),
                (path.parent == near) + (near in path.parents),
            )

        ranked = sorted(found, key=fit, reverse=True)
        if len(ranked) > 1 and fit(ranked[0]) == fit(ranked[1]):
            return f"{name!r}: {len(ranked)} files have that name, {ranked[0]} and {ranked[1]} first"
        return ranked[0]


def same(name: str) -> str:
    """Return a name as all systems would write it: macOS takes the letters of "ä" apart.

    >>> same("a\u0308") == "\u00e4"
    True
    """
    return unicodedata.normalize("NFC", name)


def both_ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first and the last 4096 bytes of a file, which say what it is without reading all of it."""
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        return head, file.read()


def read_text(path: Path) -> str:
    """Return a text file. DataError if it is too large or no UTF-8."""
    return _bytes(path).decode("utf-8-sig") if _is_utf8(path) else ""


def _is_utf8(path: Path) -> bool:
    try:
        _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, found {error.reason} at byte {error.start}") from error
    return True


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{path}: expected at most {LARGEST} bytes, found {size}")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Return what a JSON file says. DataError, naming it, if it is none."""
    try:
        return json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, found {str(error)[:120]}") from error


class _NoDocumentType(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError("expected XML without a document type, which could name entities and other files")


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file; nothing in it is expanded or fetched. DataError, naming it, if it is none."""
    try:
        return ElementTree.fromstring(_bytes(path), ElementTree.XMLParser(target=_NoDocumentType()))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: expected XML, found {error}") from error


def number(value: Any) -> float:
    """Return a finite number, also one in a string. BadShapeError if it is none."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, bool) and math.isfinite(found := float(value)):
            return found
    raise BadShapeError(f"expected a number, found {str(value)[:40]!r}")


def ring(points: Any) -> Ring:
    """Return a list of [x, y] as an array (N, 2)."""
    try:
        found = np.array(points, float)
    except (TypeError, ValueError, OverflowError):
        raise BadShapeError("expected points as [x, y]") from None
    if found.ndim != 2 or found.shape[1] != 2:
        raise BadShapeError("expected points as [x, y]")
    return found
