"""One process at a time in a folder: a lock that goes with the process that holds it.

Not here: what the folder is for.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crispseg.errors import UsageError
from crispseg.files import try_lock

NAME = ".lock"
_held: set[str] = set()


@contextmanager
def hold(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold ``folder`` (made if missing) inside the ``with``. UsageError, which names the holder, if it is held.

    The lock is the kernel's, on ``folder/.lock``: however the process ends, it is free again. Network disks pass such
    locks on between machines. On a disk that knows none, a line on stderr says that nobody is kept out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = os.path.realpath(folder)
    if key in _held:
        raise UsageError(f"{folder} is in use by this very process; wait, or choose another folder")
    descriptor = _lock(folder)
    try:
        _held.add(key)
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        _held.discard(key)
        (folder / NAME).unlink(missing_ok=True)
        os.close(descriptor)


def _lock(folder: Path) -> int:
    while True:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
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
