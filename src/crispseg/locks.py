"""One process at a time in a folder: a lock that goes with the process that holds it.

Not here: what the folder is for.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crispseg.errors import UsageError
from crispseg.files import try_lock

NAME = ".lock"
_held: set[str] = set()
_one_thread = threading.Lock()


@contextmanager
def hold(folder: str | os.PathLike[str], *, patience: float = 0.0) -> Iterator[None]:
    """Hold ``folder`` (made if missing) inside the ``with``. UsageError, which names the holder, if it is held.

    A folder that was made for it and is empty at the end goes again. ``patience``: seconds to wait for a holder that is
    soon done.

    The lock is the kernel's, on ``folder/.lock``: however the process ends, it is free again. Network disks pass such
    locks on between machines. On a disk that knows none, a line on stderr says that nobody is kept out.
    """
    folder = Path(folder)
    absent = [made for made in (folder, *folder.parents) if not made.exists()]
    key = os.path.realpath(folder)
    end = time.monotonic() + patience
    while True:
        try:
            descriptor = _take(folder, key)
            break
        except UsageError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.02)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)
        os.close(descriptor)
        _held.discard(key)
        for made in absent:
            with suppress(OSError):  # it holds something by now
                made.rmdir()


def _take(folder: Path, key: str) -> int:
    with _one_thread:
        if key in _held:
            raise UsageError(f"{folder} is in use by this very process; wait, or choose another folder")
        descriptor = _lock(folder)
        _held.add(key)
    return descriptor


def _lock(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder removed the folder
            continue
        got = try_lock(descriptor)
        if got is False:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise UsageError(f"{folder} is in use by {holder}; wait for it, or choose another folder")
        if got is None:
            print(
                f"crispseg: warning: {folder}: this disk has no locks, so a second process in it goes unnoticed",
                file=sys.stderr,
            )
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / NAME)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last holder removed the file between our opening and locking it


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['process'])} on {holder['host']!s:.80}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
