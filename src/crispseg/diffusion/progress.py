"""A progress bar for long runs: on a terminal, and only when the run has lasted a while. Elsewhere: silence.

Not here: logging.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0


@contextmanager
def progress(total: float) -> Iterator[Callable[[float], None]]:
    """Yield ``advance(done)``, which draws ``done`` of ``total`` on stderr; ``rich`` is imported when it draws."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    start, bar, task = time.monotonic(), None, None

    def advance(done: float) -> None:
        nonlocal bar, task
        if bar is None and time.monotonic() - start > PATIENCE_SECONDS:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            bar.start()
            task = bar.add_task("diffusing", total=total)
        if bar is not None and task is not None:
            bar.update(task, completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()
