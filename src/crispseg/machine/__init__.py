"""The command on its machine: how many threads it computes on, from what it may use and what is free.

Only the command asks (``crispseg.cli``); a library leaves the number of threads to its caller. A user's own settings,
``OMP_NUM_THREADS`` and its kin, win. torch is not imported here: what is chosen has to be set before it is.

Not here: how threads wait for each other while a command runs (``waiting``), and Ctrl-C (``interrupt``).
"""

import os
import sys
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 0.25
"""How long a start watches the cores to see which are free."""

THREADS = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_ours: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Share:
    """``threads`` to compute on, whether they wait ``passive``-ly (asleep, not spinning), and why, in words."""

    threads: int
    passive: bool
    why: str

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads != 1)} ({self.why}); OMP_NUM_THREADS=N takes another number"


def choose(cores: int, quota: float | None, free: float | None) -> Share:
    """Choose from the ``cores`` that the process may run on, the ``quota`` of cores that its container may use, and how
    many of the cores are ``free``; None: there is no quota, or it is not known what is free.

    A thread that shares its core with another process makes all others wait, so it is worth less than nothing. Spinning
    is charged to a quota, so under one threads wait asleep.

    >>> choose(2, None, 2.0).threads, choose(2, None, 1.02).threads, choose(2, None, 0.1).threads
    (2, 1, 1)
    >>> choose(64, 2.0, 60.0)
    Share(threads=2, passive=True, why='2 cores, the quota of this container')
    """
    least = min(float(cores), quota or cores)
    threads = max(1, int(least if free is None else min(least, free + 0.25)))
    plural = "s" * (cores != 1)
    if quota is not None and quota < cores and threads >= int(least):
        why = f"{quota:g} core{'s' * (quota != 1)}, the quota of this container"
    elif free is not None and threads < int(least):
        why = f"{max(0.0, free):.1f} of {cores} core{plural} free"
    else:
        why = f"{cores} core{plural}"
    return Share(threads=threads, passive=quota is not None and quota < cores, why=why)


def start() -> None:
    """What a command that computes does first: take its share, say so in a line, see to how threads wait."""
    from crispseg.machine import waiting

    share = settle()
    if share is not None and os.environ.get("RANK", "0") in ("", "0"):  # one of several processes speaks
        print(f"crispseg: {share}", file=sys.stderr)
    if not any(is_users(name) for name in WAITING):
        waiting.watch()


def settle(environ: MutableMapping[str, str] = os.environ) -> Share | None:
    """Choose for this process and set it; None where the user's own setting stands.

    To be called before torch is loaded; takes :data:`SECONDS`. If torch is loaded already, its number of threads is
    set and how they wait is left alone.
    """
    if any(is_users(name, environ) for name in THREADS):
        return None
    usable = cores()
    share = choose(len(usable), quota(), free_cores(usable))
    _set(environ, "OMP_NUM_THREADS", str(share.threads))
    if share.passive and not any(environ.get(name) for name in WAITING):
        _set(environ, "OMP_WAIT_POLICY", "PASSIVE")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(share.threads)
    return share


def is_users(name: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether the user set this variable, and not :func:`settle`."""
    return bool(environ.get(name)) and environ[name] != _ours.get(name)


def cores() -> frozenset[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def quota(root: Path = Path("/")) -> float | None:
    """How many cores' time the control groups of this process allow it (``docker --cpus``); None: as much as it likes.

    Version 2 of control groups and version 1, the group itself and all above it: the least counts.
    """
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            found += [_quota_2(folder) for folder in _up(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                found += [_quota_1(folder) for folder in _up(root / "sys/fs/cgroup" / name, group)]
    return min((quota for quota in found if quota is not None), default=None)


def free_cores(usable: Collection[int], *, seconds: float = SECONDS, stat: Path = Path("/proc/stat")) -> float | None:
    """How many of ``usable`` cores are free, watched for ``seconds`` in which this process sleeps; None: not known."""
    before = busy_and_idle(stat)
    time.sleep(seconds)
    after = busy_and_idle(stat)
    free = 0.0
    for core in usable:
        if core not in before or core not in after:
            return None
        busy, idle = after[core][0] - before[core][0], after[core][1] - before[core][1]
        free += idle / (busy + idle) if busy + idle else 1.0
    return free


def busy_and_idle(stat: Path = Path("/proc/stat")) -> dict[int, tuple[int, int]]:
    """Ticks that each core was busy and idle since the start of the machine; empty where the system does not say."""
    found = {}
    for line in _read(stat).splitlines():
        name, *values = line.split()
        if name[:3] == "cpu" and name[3:].isdigit():
            user, nice, system, idle, iowait, *more = map(int, values)
            found[int(name[3:])] = user + nice + system + sum(more[:3]), idle + iowait
    return found


def _set(environ: MutableMapping[str, str], name: str, value: str) -> None:
    environ[name] = _ours[name] = value


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _up(mount: Path, group: str) -> list[Path]:
    """The folder of a group and of those above it. Inside a container ``group`` may be named as the host sees it."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _quota_2(folder: Path) -> float | None:
    share, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(share) / int(period) if share.isdigit() and period.isdigit() and int(period) else None


def _quota_1(folder: Path) -> float | None:
    share, period = (_read(folder / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
    return int(share) / int(period) if share.isdigit() and period.isdigit() and int(period) else None
