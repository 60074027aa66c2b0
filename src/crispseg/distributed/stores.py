"""Folders of object stores (``s3://``, ``gs://``, …), through fsspec: pictures, masks, and the record of these.

A store has no locks, and it writes an object whole or not at all. So each prediction writes a record of its own,
``predictions.TIME.json``, and reads all of them, the latest last: no entry is lost. That two predictions, by different
runs, begin the same mask in the same second is not noticed.

Not here: the rules of who may replace what (``crispseg.inference.record``).
"""

import importlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from crispseg.data import ClassSet
from crispseg.data.classes import decode_classes, encode_classes
from crispseg.data.images import SUFFIXES
from crispseg.errors import DataError, UsageError, in_a_line, require
from crispseg.inference import Input, record
from crispseg.inference import expand as expand_local

EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""The package beside fsspec that a protocol needs."""


def is_remote(word: str) -> bool:
    """Whether a word names something in a store, and no file.

    >>> is_remote("s3://bucket/photos"), is_remote("photos"), is_remote("file:photos")
    (True, False, False)
    """
    return "://" in word


class Store:
    """A folder of a store, by its URL. UsageError if a package for its protocol is missing or unknown."""

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        if protocol in ("file", "local"):
            raise UsageError(f"{url}: a file of this machine is written as a path, without {protocol}://")
        require("stores", "fsspec", *([EXTRAS[protocol]] if protocol in EXTRAS else []), purpose=f"{protocol}://")
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = importlib.import_module("fsspec.core").url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{url}: {in_a_line(error)}") from error

    def files(self) -> list[str]:
        """The names of all objects in it, relative to it, sorted."""
        with self._named():
            self._fs.invalidate_cache()
            found = self._fs.find(self._root) if self._fs.exists(self._root) else []
        return sorted(str(PurePosixPath(name).relative_to(self._root)) for name in found if name != self._root)

    def is_file(self) -> bool:
        """Whether it is no folder but one object."""
        with self._named():
            return bool(self._fs.isfile(self._root))

    def read(self, name: str) -> bytes:
        """Return an object."""
        with self._named(name):
            return bytes(self._fs.cat_file(f"{self._root}/{name}" if name else self._root))

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        with self._named(name):
            self._fs.pipe_file(f"{self._root}/{name}", data)

    @contextmanager
    def _named(self, name: str = "") -> Iterator[None]:
        """What a store's library raises as a DataError that names the object."""
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"{where}: no such object") from None
        except Exception as error:  # each library has kinds of its own
            raise DataError(f"{where}: {in_a_line(error)}") from error


def expand(words: Sequence[str | Path]) -> list[Input]:
    """Return the pictures meant by files, folders and patterns, and by folders and objects of stores.

    Raises ``UsageError`` as :func:`crispseg.inference.expand`, and where two pictures would have one name.
    """
    local = [word for word in words if not is_remote(str(word))]
    pictures = expand_local(local) if local else []
    for word in (str(word) for word in words if is_remote(str(word))):
        store = Store(word)
        names = [""] if store.is_file() else [n for n in store.files() if PurePosixPath(n).suffix.lower() in SUFFIXES]
        if not names:
            raise UsageError(f"{word}: expected pictures ({', '.join(sorted(SUFFIXES))}) in this folder, found none")
        for name in names:
            url = f"{store.url}/{name}" if name else store.url
            stem = str(PurePosixPath(name or PurePosixPath(url).name).with_suffix(""))
            pictures.append(Input(Path(PurePosixPath(url).name), stem, url))
    taken: dict[str, Input] = {}
    for picture in pictures:
        other = taken.setdefault(picture.name.casefold(), picture)
        if other is not picture:
            raise UsageError(f"{other.place()} and {picture.place()} would have one mask; predict them apart")
    return pictures


def claim(url: str, files: Mapping[str, Input], classes: ClassSet, source: str, *, overwrite: bool) -> None:
    """Record in a store the ``files`` that will be written, as ``crispseg.inference.record.claim`` does in a folder."""
    store = Store(url)
    there = set(store.files())
    before: dict[str, record.Entry] = {}
    for name in sorted(there):
        if "/" not in name and name.startswith("predictions.") and name.endswith(".json"):
            before |= record.decode(store.read(name).decode(), f"{store.url}/{name}")
    new: dict[str, record.Entry] = {name: {"by": source, "of": picture.place()} for name, picture in files.items()}
    inputs = {picture.url for picture in files.values()}
    for name, entry in new.items():
        target = f"{store.url}/{name}"
        if target in inputs:
            raise UsageError(f"{target} is itself an input, and would be replaced by its mask; choose another --out")
        if name in there:
            record.check(target, store.url, before.get(name), entry, before, overwrite)
    if record.CLASSES in there and decode_classes(store.read(record.CLASSES).decode(), store.url) != classes:
        raise UsageError(f"{store.url}/{record.CLASSES} is there already, with other classes; choose another --out")
    text = json.dumps({"files": new}, indent=1, sort_keys=True)
    store.write(f"predictions.{time.time_ns():020d}-{secrets.token_hex(4)}.json", text.encode())
    store.write(record.CLASSES, encode_classes(classes))
