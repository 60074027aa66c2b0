"""How far something is: a bar where there is a terminal, otherwise a line every 20 seconds with the time left."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
EVERY = 20.0  # seconds


def say(line: str) -> None:
    """Tell a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def _to_nobody(line: str) -> None:
    pass


class Ticker:
    """Says how far ``what`` is, each time that :data:`EVERY` seconds are over; ``start``: what was done before.

    >>> clock = iter(range(0, 100, 15))
    >>> ticker = Ticker("training", 10, say=print, clock=lambda: next(clock))
    >>> for done in range(1, 5): ticker.at(done, "loss 0.5")
    training: 2 of 10, loss 0.5, 2 min left
    training: 4 of 10, loss 0.5, 2 min left
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        start: int = 0,
        say: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.start, self.say, self.clock = what, total, start, say, clock
        self.began = self.last = clock()

    def at(self, done: int, said: str = "") -> None:
        """``done`` of them are done; ``said``: what else is to be told."""
        now = self.clock()
        if now - self.last < EVERY or done >= self.total:
            return
        self.last = now
        left = (now - self.began) / max(1, done - self.start) * (self.total - done)
        self.say(f"{self.what}: {done} of {self.total}{', ' * bool(said)}{said}, {in_words(left)} left")


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield ``items``, and show on stderr how many of them are done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, total=total, description=what, console=Console(stderr=True))
    else:
        yield from lines(items, what, total)


def lines(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """As :func:`track`, for a part of something longer: no bar, and no line where there is a terminal for one."""
    ticker = Ticker(what, total, say=_to_nobody if sys.stderr.isatty() else say)
    for done, item in enumerate(items, start=1):
        yield item
        ticker.at(done)


def in_words(seconds: float) -> str:
    """A time as one says it.

    >>> in_words(8), in_words(100), in_words(4000), in_words(40000)
    ('8 s', '2 min', '1 h 7 min', '11 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
