"""Which pictures a user means by files, folders and patterns, and the name that each answer gets.

No picture is opened here.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crispseg.data.images import SUFFIXES
from crispseg.data.samples import files_below
from crispseg.errors import UsageError
from crispseg.names import matching


@dataclass(frozen=True)
class Input:
    """A picture and the name of its answer: a relative path without suffix, different for every input.

    ``url``: where it is, if it lies in an object store; ``path`` is then its name alone.
    """

    path: Path
    name: str
    url: str | None = None

    def place(self) -> str:
        """The one word for where this picture is."""
        return str(identity(self.path)) if self.url is None else self.url


def expand(words: Sequence[str | Path]) -> list[Input]:
    """Return the pictures meant by files, folders and glob patterns, in the order given, each once.

    A folder means every picture below it, by suffix, and its folders are kept in the names; one that ends in ``.zarr``
    is a picture itself. A pattern (``*``, ``?``, ``[…]``, and ``**`` for any folders) is expanded if no file has that
    very name. Any other word is taken for a file, there or not: whether it can be read turns out later. Where names
    would collide, those inputs get more of their path, then their suffix, and then a number. A picture that several
    paths lead to, over links to folders, is one.

    Raises ``UsageError`` if a folder holds no picture, a pattern matches none, or a word is empty.
    """
    chosen: dict[Path, tuple[Path, str]] = {}
    for word in words:
        if not str(word).strip():
            raise UsageError("expected files, folders or patterns, found an empty word; for this folder write a dot")
        for path, name in _expand_word(Path(word)):
            chosen.setdefault(identity(path), (path, name))
    pictures = list(chosen.values())
    return [Input(path, name) for (path, _), name in zip(pictures, _distinct(pictures), strict=True)]


def identity(path: Path) -> Path:
    """The one path to this file that every link to a folder leads to; a link to a file stays a file of its own."""
    return Path(os.path.realpath(path.parent), path.name)


def _expand_word(word: Path) -> list[tuple[Path, str]]:
    if word.is_dir() and not is_zarr(word):
        found = [(path, _stem(path.relative_to(word))) for path in _pictures(files_below(word))]
        if not found:
            raise UsageError(f"{word}: expected pictures ({', '.join(sorted(SUFFIXES))}) in this folder, found none")
        return found
    matches = matching(word)
    if matches == [word]:
        return [(word, word.stem)]
    found = [(path, path.stem) for path in matches if is_zarr(path) or (path.is_file() and _pictures([path]))]
    if not found:
        raise UsageError(f"{word}: no picture matches this pattern")
    return found


def is_zarr(path: Path) -> bool:
    """Whether a folder is one picture, judged by its suffix."""
    return path.suffix.lower() == ".zarr"


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() in SUFFIXES]


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _distinct(inputs: list[tuple[Path, str]]) -> list[str]:
    """Rename only what collides, in steps; comparison ignores case, as some file systems do."""
    names = [name for _, name in inputs]
    for rename in (_longer, _with_suffix):
        taken = Counter(name.casefold() for name in names)
        if len(taken) == len(names):
            break
        names = [
            rename(path) if taken[name.casefold()] > 1 else name for (path, _), name in zip(inputs, names, strict=True)
        ]
    return _numbered(names)


def _numbered(names: list[str]) -> list[str]:
    """Append to every name that came before the first number that makes it a new one."""
    taken, seen = {name.casefold() for name in names}, set[str]()
    result = []
    for name in names:
        if name.casefold() in seen:
            name = next(new for i in itertools.count(1) if (new := f"{name}_{i}").casefold() not in taken)
            taken.add(name.casefold())
        seen.add(name.casefold())
        result.append(name)
    return result


def _longer(path: Path) -> str:
    parts = [part for part in path.absolute().with_suffix("").parts[1:] if part != ".."]
    return "_".join(parts[-3:])


def _with_suffix(path: Path) -> str:
    return f"{_longer(path)}_{path.suffix.lstrip('.')}"
