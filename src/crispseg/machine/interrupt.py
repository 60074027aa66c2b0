"""Ctrl-C that is answered at once, also while the main thread is inside a long call to a library.

Python hands Ctrl-C to the main thread, which sees it when its call returns: an operator on a large picture takes its
time. A kill costs nothing, since files are written whole and locks go with their process; so it is not waited for.
"""

import os
import signal
import sys
import threading
import time
from typing import NoReturn

SECONDS = 1.5
"""What a command gets to end by itself."""

CODE = 130


def watch() -> None:
    """End the process :data:`SECONDS` after Ctrl-C if it has not ended by then. To be called in the main thread."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader,), name="crispseg interrupt", daemon=True).start()


def leave() -> NoReturn:
    """End the process, without the seconds that a large library takes to be taken down in order."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CODE)


def _wait(reader: int) -> None:
    while os.read(reader, 1) != bytes([signal.SIGINT]):  # each signal that Python handles is told by its number
        pass
    time.sleep(SECONDS)
    if threading.main_thread().is_alive():  # otherwise it said so itself, and waits for something at its end
        os.write(2, b"\ncrispseg: interrupted\n")
    os._exit(CODE)
