"""How every benchmark measures: interleaved timings, peak resident memory, and a stamp of where and when.

Interleaving: the rivals take turns, round after round, so that a slow minute of the machine falls on all of them alike;
a ratio is then taken between medians of the same run. A median is of five calls or more; a row says of how many.

Memory is the resident set as the kernel counts it (Linux only), so that scratch space which torch's allocator never
sees, oneDNN's for example, counts too.

Not here: what is measured.
"""

import ctypes
import datetime
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from crispseg.files import write_json

Name = TypeVar("Name", bound=Hashable)
RESULTS = Path(__file__).parent / "results"
LEAST = 5
SOURCES = ("src", "benchmarks", "experiments", ":(exclude)*/results/*")
"""What a measurement is made by: git's pathspecs. What it writes is not among it."""
M_MMAP_THRESHOLD = -3  # <malloc.h>: blocks above this size are mapped, and so leave the resident set when freed


def interleaved(
    rivals: Mapping[Name, Callable[[], object]],
    *,
    seconds: float = 10.0,
    least: int = LEAST,
    most: int = 200,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Time ``rivals`` in turns: one warm-up round, then ``least`` to ``most`` rounds until ``seconds`` are spent.

    However slow they are, there are five rounds.

    Returns the seconds of every call, by name; with ``clock=time.process_time`` those of the processor, which on one
    thread do not depend on what else the machine does.
    """
    for call in rivals.values():
        call()
    times: dict[Name, list[float]] = {name: [] for name in rivals}
    end = time.perf_counter() + seconds
    for turn in range(most):
        if turn >= max(least, LEAST) and time.perf_counter() > end:
            break
        for name, call in rivals.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def medians(times: Mapping[Name, list[float]]) -> dict[Name, float]:
    """The median of each list, in the unit of the list."""
    return {name: statistics.median(values) for name, values in times.items()}


def calls(times: Mapping[Any, list[float]]) -> int:
    """Of how many calls each median is."""
    return min(len(values) for values in times.values())


def spread(numbers: Iterable[int]) -> str:
    """From the smallest to the largest: ``"5"``, ``"5 to 28"``."""
    found = sorted(set(numbers))
    return " to ".join(map(str, dict.fromkeys((found[0], found[-1]))))


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes by which the resident set rose at its highest while ``call`` ran, what it returned included.

    A first call warms caches and is not counted.
    """
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    call()
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark
    before = status("VmRSS")
    call()
    return max(0, status("VmHWM") - before)


def stamp() -> dict[str, Any]:
    """Where and when: commit (see :func:`commit`), date, processor, threads, versions."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit(checkout: Path = RESULTS.parents[1], sources: Sequence[str] = SOURCES) -> str:
    """The commit of a checkout, with ``+`` if a source differs from it; results that a run writes are no source."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *sources) else "")


def save(subject: str, rows: Any) -> Path:
    """Write ``benchmarks/results/<subject>.json``, the rows with the stamp; return the path."""
    path = RESULTS / f"{subject}.json"
    write_json(path, {"stamp": stamp(), "rows": rows})
    return path


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _processor() -> str:
    """The model with the family and the vector unit, since clouds hide the number behind a plain brand name."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    parts = [line.partition(":") for line in first.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in parts}
    flags = fields.get("flags", "")
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    name, family, model = fields.get("model name", platform.processor()), fields.get("cpu family"), fields.get("model")
    return f"{name} (family {family}, model {model}, {vector})"
