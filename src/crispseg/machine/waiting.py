"""How OpenMP's threads wait for each other: spinning on a free machine, asleep on a busy one, changed while they run.

A thread that spins answers at once, and is right while every thread has a core. Beside another process it spins for one
that the kernel is not running: a training becomes ten times slower than asleep. libgomp, torch's runtime, reads
``OMP_WAIT_POLICY`` at its start alone; but it also stops spinning by itself while it has more threads than cores. So
beside other processes we give it some: threads that ran one operator and then sleep. Nothing else changes, no bit of a
result either.

Not here: how many threads there are (``crispseg.machine``).
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from crispseg import machine

SECONDS = 1.0
"""Between two looks at the machine."""


def watch() -> threading.Thread | None:
    """Start to watch over this process's threads in the background; None where the system does not say what is busy."""
    if not machine.busy_and_idle():
        return None
    thread = threading.Thread(target=_watch, name="crispseg waiting", daemon=True)
    thread.start()
    return thread


def is_crowded(others: float, cores: int, threads: int, *, was: bool) -> bool:
    """Whether ``threads`` of ours have no core each beside processes that keep ``others`` cores busy.

    It starts at a quarter of a core too few and ends at a tenth, so that it does not flutter.

    >>> is_crowded(1.0, 2, 2, was=False), is_crowded(0.2, 2, 2, was=False), is_crowded(0.2, 2, 2, was=True)
    (True, False, True)
    """
    return threads > 1 and others > cores - threads + (0.1 if was else 0.25)


class Sleepers:
    """Threads of OpenMP that only count: while they are there, all others wait asleep. Use as a context manager."""

    def __init__(self, cores: int, threads: int) -> None:
        teams = max(1, -(-(cores - threads + 1) // (threads - 1)))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(threads,), daemon=True) for _ in range(teams)]
        self._ready = threading.Semaphore(0)

    def __enter__(self) -> "Sleepers":
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._ready.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, threads: int) -> None:
        import torch

        torch.zeros(threads << 17).sigmoid_()  # an operator that all threads of a team share: the team stays
        self._ready.release()
        self._over.wait()


def _watch(rest: Callable[[float], None] = time.sleep) -> None:
    sleepers: Sleepers | None = None
    usable = machine.cores()
    before, mine, at = machine.busy_and_idle(), time.process_time(), time.monotonic()
    ticks = _ticks()
    while True:
        rest(SECONDS)
        after, now_mine, now = machine.busy_and_idle(), time.process_time(), time.monotonic()
        busy = sum(after[core][0] - before[core][0] for core in usable if core in before and core in after) / ticks
        others = (busy - (now_mine - mine)) / (now - at)
        before, mine, at = after, now_mine, now
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "get_num_threads"):
            continue
        threads = torch.get_num_threads()
        crowded = is_crowded(others, len(usable), threads, was=sleepers is not None)
        if crowded and sleepers is None:
            sleepers = Sleepers(len(usable), threads).__enter__()
        elif not crowded and sleepers is not None:
            sleepers.__exit__()
            sleepers = None


def _ticks() -> float:
    import os

    return float(os.sysconf("SC_CLK_TCK"))
