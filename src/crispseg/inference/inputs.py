"""Which pictures a user means by files, folders and patterns, and the name that each answer gets.

No picture is opened here.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.images import SUFFIXES
from crispseg.data.samples import files_below
from crispseg.errors import UsageError


@dataclass(frozen=True)
class Input:
    """A picture and the name of its answer: a relative path without suffix, different for every input."""

    path: Path
    name: str


def expand(words: Sequence[str | Path]) -> list[Input]:
    """Return the pictures meant by files, folders and glob patterns, in the order given, each once.

    A folder means every picture below it, by suffix, and its folders are kept in the names. A pattern (``*``, ``?``,
    ``[…]``, and ``**`` for any folders) is expanded if no file has that very name. Any other word is taken for a file,
    there or not: whether it can be read turns out later. Where names would collide, those inputs get more of their
    path, then their suffix, and then a number.

    Raises ``UsageError`` if a folder holds no picture or a pattern matches none.
    """
    chosen: dict[str, tuple[Path, str]] = {}
    for word in words:
        for path, name in _expand_word(Path(word)):
            chosen.setdefault(os.path.abspath(path), (path, name))
    pictures = list(chosen.values())
    return [Input(path, name) for (path, _), name in zip(pictures, _distinct(pictures), strict=True)]


def _expand_word(word: Path) -> list[tuple[Path, str]]:
    if word.is_dir():
        found = [(path, _stem(path.relative_to(word))) for path in _pictures(files_below(word))]
        if not found:
            raise UsageError(f"{word}: expected pictures ({', '.join(sorted(SUFFIXES))}) in this folder, found none")
        return found
    if word.exists() or not glob.has_magic(str(word)):
        return [(word, word.stem)]
    matches = [Path(match) for match in sorted(glob.glob(str(word), recursive=True))]
    found = [(path, path.stem) for path in _pictures(matches) if path.is_file()]
    if not found:
        raise UsageError(f"{word}: no picture matches this pattern")
    return found


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() in SUFFIXES]


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _distinct(inputs: list[tuple[Path, str]]) -> list[str]:
    """Rename only what collides, in three steps; comparison ignores case, as some file systems do."""
    names = [name for _, name in inputs]
    for rename in (_longer, _with_suffix, _numbered):
        taken = Counter(name.casefold() for name in names)
        if len(taken) == len(names):
            break
        names = [
            rename(path, i) if taken[name.casefold()] > 1 else name
            for i, ((path, _), name) in enumerate(zip(inputs, names, strict=True))
        ]
    return names


def _longer(path: Path, _: int) -> str:
    parts = [part for part in path.absolute().with_suffix("").parts[1:] if part != ".."]
    return "_".join(parts[-3:])


def _with_suffix(path: Path, i: int) -> str:
    return f"{_longer(path, i)}_{path.suffix.lstrip('.')}"


def _numbered(path: Path, i: int) -> str:
    return f"{_with_suffix(path, i)}_{i}"
