"""How threads wait: on a busy machine they stop to spin, on a free one they spin again. Told by processor time."""

import os
import subprocess
import sys

import pytest

from crispseg.machine import waiting

SPINS = """
import os, sys, time, torch
from crispseg.machine import waiting
torch.set_num_threads(2)
x = torch.rand(400_000)
def spent():
    "Processor time beside that of the main thread, over gaps between operators in which a spinning thread spins."
    torch.sigmoid(x)
    start = time.process_time() - time.thread_time()
    for _ in range(40):
        torch.sigmoid(x); time.sleep(0.004)
    return time.process_time() - time.thread_time() - start
spent()
before = spent()
with waiting.Sleepers(len(os.sched_getaffinity(0)), 2):
    spent()
    asleep = spent()
    result = torch.sigmoid(x)
spent()
assert torch.equal(result, torch.sigmoid(x))
print(before, asleep, spent())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's way to wait")
def test_threads_stop_to_spin_while_there_are_sleepers_and_spin_again_after():
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment["OMP_NUM_THREADS"] = "2"
    said = subprocess.run([sys.executable, "-c", SPINS], capture_output=True, text=True, env=environment, check=True)
    before, asleep, after = map(float, said.stdout.split())
    assert asleep < before / 2 and asleep < after / 2


@pytest.mark.parametrize(("cores", "threads", "teams"), [(2, 2, 1), (64, 64, 1), (64, 4, 21), (8, 2, 7)])
def test_sleepers_are_enough_to_make_more_threads_than_cores(cores, threads, teams):
    found = len(waiting.Sleepers(cores, threads)._threads)
    assert found == teams
    managed = 1 + (threads - 1) * (1 + found)  # of libgomp: the main thread, and each team's others
    assert managed > cores
    assert found == 1 or 1 + (threads - 1) * found <= cores  # and not a team too many


@pytest.mark.parametrize(
    ("others", "threads", "was", "crowded"),
    [
        (0.0, 2, False, False),
        (1.0, 2, False, True),
        (3.0, 2, False, True),
        (1.0, 1, False, False),  # one thread waits for nobody
        (0.2, 2, True, True),
        (0.05, 2, True, False),
    ],
)
def test_a_machine_is_crowded_when_a_thread_has_no_core_of_its_own(others, threads, was, crowded):
    assert waiting.is_crowded(others, 2, threads, was=was) == crowded


def test_the_watch_puts_threads_to_sleep_and_wakes_them(monkeypatch):
    """Over a simulated day: idle, two processes beside ours, idle again."""
    ticks = waiting._ticks()
    busy, now, happened = 0.0, 0.0, []
    day = iter([0.0, 1.5, 1.5, 0.0, 0.0])  # cores that others keep busy in each interval

    class Recorded:
        def __init__(self, *of):
            self.of = of

        def __enter__(self):
            happened.append(("asleep", *self.of))
            return self

        def __exit__(self, *_):
            happened.append(("awake", *self.of))

    def rest(seconds):
        nonlocal busy, now
        try:
            busy += next(day) * seconds * ticks
        except StopIteration:
            raise InterruptedError from None
        now += seconds

    monkeypatch.setattr(waiting, "Sleepers", Recorded)
    monkeypatch.setattr(waiting.machine, "cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr(waiting.machine, "busy_and_idle", lambda: {0: (busy, 0), 1: (0, 0), 2: (99 * now, 0)})
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now)
    monkeypatch.setattr(waiting.time, "process_time", lambda: 0.0)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with pytest.raises(InterruptedError):
        waiting._watch(rest)
    assert happened == [("asleep", 2, 2), ("awake", 2, 2)]
