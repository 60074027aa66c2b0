"""Writing files so that a kill or a full disk leaves the old file or the new one, never half of either.

What a target is decides how: a regular file is replaced whole, a link is followed to the file that it names, and a
device or a pipe (``/dev/stdout``) is written to and stays what it is.

Not here: what is in the files.
"""

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

if sys.platform != "win32":
    import fcntl

PREFIX, SUFFIX = ".crispseg-", ".tmp"
FOLDER, OLD = ".new", ".old"
"""Of the temporary name; with eight characters between them it fits wherever the file's own name does."""


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` atomically: temporary name in the same folder, fsync, rename.

    The folder is made if it is missing; a file that was there keeps its permissions. Raises ``OSError`` (naming the
    file) if the disk refuses or the file is read-only; the file that stood there before is then untouched.
    """
    path = Path(path)
    try:
        there = _status(path)
        if there is not None and not _is_replaceable(there):
            _write_into(path, there, data)
            return
        if there is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, stat.S_IMODE(there.st_mode) if there else 0o666 & ~_umask(), data)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, an empty file; what is written to it takes the place of ``path``.

    For files that are written piece by piece. At the end of the ``with`` it is fsynced and renamed; if that is left by
    an error, the file that stood there before stays. Raises as :func:`write_bytes`.
    """
    path = Path(path)
    try:
        there = _status(path)
        if there is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target, stat.S_IMODE(there.st_mode) if there else 0o666 & ~_umask()) as (temporary, _):
            yield temporary
    except OSError as error:
        if error.strerror is None:  # of a library, which says it in its own words
            raise
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


@contextmanager
def writing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; at the end of the ``with`` it takes the place of the folder ``path``.

    If that is left by an error, the folder that stood there before stays. Between two renames there may be none for a
    moment; what :func:`sweep` finds of a killed writer goes.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, lock = _temporary(target.parent)
    new, old = Path(lock + FOLDER), Path(lock + OLD)
    try:
        with os.fdopen(handle, "wb"):
            new.mkdir()
            yield new
            if target.exists():
                target.rename(old)
            new.rename(target)
    finally:
        if not target.exists() and old.exists():
            old.rename(target)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        Path(lock).unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinities are refused: JSON has none (use None)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what writers that were killed left in ``folder``; the temporary file of one at work is locked and stays.

    Files that cannot be locked (another user's, or on a disk without locks) stay too.
    """
    for left in Path(folder).glob(f"{PREFIX}????????{SUFFIX}"):
        try:
            with left.open("r+b") as file:
                if try_lock(file.fileno()):
                    for folder in (f"{left}{FOLDER}", f"{left}{OLD}"):
                        shutil.rmtree(folder, ignore_errors=True)
                    left.unlink()
        except OSError:
            continue


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file for this process, until it closes the file or ends in any way. True: it is locked.

    False: another process holds it. None: this disk or system has no locks. The lock is POSIX's, which network disks
    have as well and which a forked loader process does not keep alive after its parent's death. Within one process it
    excludes nobody, and is lost when any descriptor of the file is closed.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _temporary(folder: Path) -> tuple[int, str]:
    """A new file in ``folder``, open and by name, locked so that :func:`sweep` leaves it alone.

    A sweep of another process may come before the lock, and take it for what a killed writer left: then another one.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=SUFFIX)
        if try_lock(handle) is not False and os.path.exists(name):
            return handle, name
        os.close(handle)


def _replace(target: Path, mode: int, data: bytes | memoryview) -> None:
    with _replacing(target, mode) as (_, file):
        file.write(data)
        file.flush()


@contextmanager
def _replacing(target: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A temporary file beside ``target``, by name and open, that takes its place at the end of the ``with``."""
    handle, temporary = _temporary(target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield Path(temporary), file
            os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_replaceable(there: os.stat_result) -> bool:
    """A regular file, but not that of ``--json /dev/stdout >file``: replaced, what is printed next would be lost."""
    return stat.S_ISREG(there.st_mode) and _standard(there) is None


def _standard(there: os.stat_result) -> int | None:
    """The standard stream, 1 or 2, that writes to this file."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
        except OSError:  # closed
            continue
    return None


def _write_into(path: Path, there: os.stat_result, data: bytes | memoryview) -> None:
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder")
    descriptor = _standard(there)
    if descriptor is None:
        with path.open("wb", buffering=0) as file:
            _write_all(file.fileno(), data)
        return
    for stream in (sys.stdout, sys.stderr):  # what was printed before comes first
        stream.flush()
    _write_all(descriptor, data)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
