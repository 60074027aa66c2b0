"""Which files belong together: an image and its label, by name, found in a data set's folders.

Nothing is opened here. Not here: the folders of each data set (``layouts``).
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.images import SUFFIXES
from crispseg.errors import DataError

PNG = frozenset((".png",))
Beside = dict[Path, dict[str, str]]
"""Of a folder: the first file of each stem, and of each without a suffix that tools give to masks."""
SUFFIX = re.compile(r"[-_.](masks?|labels?|seg|gt)$")


@dataclass(frozen=True)
class Sample:
    """An image file, its label file, and what the values in the label file mean (``read_label`` has the details)."""

    name: str
    image: Path
    label: Path | None = None
    mapping: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Split:
    """The images and labels of a split by name, paired or not; ``{}`` in a pattern stands for the name."""

    images: dict[str, Path]
    labels: dict[str, Path]
    image_pattern: str
    label_pattern: str
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


def pair(split: Split) -> list[Sample]:
    """Return the samples sorted by name. Raises ``DataError`` for a file without partner or an empty split."""
    if not split.images and not split.labels:
        raise DataError(f"expected images {split.image_pattern.replace('{}', 'NAME')}, found none: the split is empty")
    alone = without_partner(split)
    if alone:
        raise DataError(alone[0] + (f"; {len(alone) - 1} more have none" if len(alone) > 1 else ""))
    return [Sample(name, split.images[name], split.labels[name], split.mapping) for name in sorted(split.images)]


def without_partner(split: Split) -> list[str]:
    """Say of every image without label and label without image what was expected, images first, sorted by name."""
    messages = []
    beside: Beside = {}
    for have, lack, kind, partner, pattern in (
        (split.images, split.labels, "image", "label", split.label_pattern),
        (split.labels, split.images, "label", "image", split.image_pattern),
    ):
        for name in sorted(have.keys() - lack.keys()):
            messages.append(f"{have[name]}: {kind} without {partner}; {_expected(pattern, name, partner, beside)}")
    return messages


def _expected(pattern: str, name: str, kind: str, beside: Beside) -> str:
    expected = Path(pattern.replace("{}", name))
    if expected.parent not in beside:  # each folder is listed once, not once for every one of its files
        stems = beside[expected.parent] = {}
        for path in sorted(expected.parent.glob("*")):
            for stem in (path.stem, SUFFIX.sub("", path.stem)):
                stems.setdefault(stem, path.name)
    same_stem = beside[expected.parent].get(expected.stem)
    found = f", found {same_stem}, which is not read as {kind}" if same_stem else ""
    if kind == "label" and same_stem and same_stem.lower().endswith((".jpg", ".jpeg")):
        found += "; a label is a PNG, since JPEG invents values at every border"
    return f"expected {expected}{found}"
