"""Which files belong together: an image and its label, by name, found in a data set's folders.

Nothing is opened here. Not here: the folders of each data set (``layouts``).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.images import SUFFIXES
from crispseg.errors import DataError


@dataclass(frozen=True)
class Sample:
    """An image file, its label file, and what the values in the label file mean (``read_label`` has the details)."""

    name: str
    image: Path
    label: Path | None = None
    mapping: tuple[int, ...] | None = None


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every visible file below ``folder`` in sorted order; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def by_name(folder: Path, key: Callable[[str], str | None], suffixes: frozenset[str] = SUFFIXES) -> dict[str, Path]:
    """Return the files below ``folder`` under the name that ``key`` makes of their path without suffix.

    A file with another suffix, or for which ``key`` returns None, is no part of the data set and is left out. Raises
    ``DataError`` if two files have one name.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() not in suffixes:
            continue
        name = key(path.relative_to(folder).with_suffix("").as_posix())
        if name is None:
            continue
        if name in found:
            raise DataError(f"{path} and {found[name].name} have the same name; keep one of them")
        found[name] = path
    return found


def pair(
    images: Mapping[str, Path], labels: Mapping[str, Path], image_pattern: str, label_pattern: str
) -> list[tuple[str, Path, Path]]:
    """Return (name, image, label) sorted by name. Raises ``DataError`` for a file without partner or an empty split.

    The patterns say where a partner is expected; ``{}`` stands for the name.
    """
    if not images and not labels:
        raise DataError(f"expected images {image_pattern.replace('{}', 'NAME')}, found none: the split is empty")
    for have, lack, kind, partner, pattern in (
        (images, labels, "image", "label", label_pattern),
        (labels, images, "label", "image", image_pattern),
    ):
        missing = sorted(have.keys() - lack.keys())
        if missing:
            more = f"; {len(missing)} {kind}s have none" if len(missing) > 1 else ""
            raise DataError(
                f"{have[missing[0]]}: {kind} without {partner}; {_expected(pattern, missing[0], partner)}{more}"
            )
    return [(name, images[name], labels[name]) for name in sorted(images)]


def _expected(pattern: str, name: str, kind: str) -> str:
    expected = Path(pattern.replace("{}", name))
    same_stem = sorted(p.name for p in expected.parent.glob("*") if p.stem == expected.stem)
    found = f", found {same_stem[0]}, which is not read as {kind}" if same_stem else ""
    return f"expected {expected}{found}"
