"""Work on a Ray cluster: a pool of actors, a stream of units, and what became of each. Not here: what the work is."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from crispseg.errors import UsageError, require

RETRIES = 3
"""How often a task is done again after its worker was killed, before it is given up."""
MOST = 16
"""Units of a task, at most: what is done again after a kill."""
_STORE = 128 * 2**20
"""Bytes of shared memory of a Ray that is started here: units and answers are a line each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """``count`` processes (None: as many as fit the cluster), each of which computes on ``cores`` cores."""

    count: int | None = None
    cores: int = 1

    def __post_init__(self) -> None:
        if self.cores < 1 or (self.count is not None and self.count < 1):
            raise ValueError(f"count and cores must be at least 1, found {self.count} and {self.cores}")


def work(
    worker: Callable[..., Any], task: Any, units: Sequence[Mapping[str, Any]], *, count: int, cores: int, gpu: bool
) -> Iterator[dict[str, Any]]:
    """Yield the answer to each unit as it comes, in any order; of a unit whose workers ended each time there is none.

    Parameters
    ----------
    worker
        A class: ``worker(task)`` is made once a process, and called with a batch of units, a dict of arrays by key; it
        returns a dict of lists as long.
    units
        Numbers and words by key, the same keys in each.
    count, cores, gpu
        How many workers, as :func:`cluster` says; the cores of each; whether each has a GPU of its own.
    """
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is lost is missing among the answers; all others are done
    size = max(1, min(MOST, len(units) // (4 * count)))
    answers = ray.data.from_items(list(units), override_num_blocks=-(-len(units) // size)).map_batches(
        worker,
        fn_constructor_args=(task,),
        batch_size=None,
        concurrency=min(count, len(units)),
        num_cpus=cores,
        num_gpus=1 if gpu else None,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    yield from answers.iter_rows()


@contextmanager
def cluster(workers: Workers, *, gpu: bool) -> Iterator[int]:
    """Connect to the cluster that runs here or at ``RAY_ADDRESS``, or start one; yield how many workers it holds.

    One that was started here is ended with the ``with``. What Ray itself tells goes to stderr, and nothing is reported
    to its makers. Raises ``UsageError`` if Ray is not installed, or the cluster is too small.
    """
    require("ray", "ray", "pyarrow", purpose="a cluster")
    for name, value in {"USAGE_STATS_ENABLED": "0", "DATA_DISABLE_PROGRESS_BARS": "1", "DEDUP_LOGS": "0"}.items():
        os.environ.setdefault(f"RAY_{name}", value)
    ray = _ray()
    ours, quiet = not ray.is_initialized(), {"log_to_driver": False, "logging_level": "ERROR"}
    with redirect_stdout(sys.stderr):
        try:
            if ours:
                try:
                    ray.init(address="auto", **quiet)
                except ConnectionError:
                    ray.init(address="local", include_dashboard=False, object_store_memory=_STORE, **quiet)
            yield fitting(workers, ray.cluster_resources(), gpu)
        finally:
            if ours:
                ray.shutdown()


def _ray() -> Any:
    importlib.import_module("ray.data")
    return importlib.import_module("ray")


def fitting(workers: Workers, resources: Mapping[str, float], gpu: bool) -> int:
    """Return how many workers there will be. UsageError if the cluster has not what they need.

    >>> fitting(Workers(cores=2), {"CPU": 7.0}, gpu=False)
    3
    """
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    most = min(cores // workers.cores, gpus) if gpu else cores // workers.cores
    count = most if workers.count is None else workers.count
    if not 1 <= count <= most:
        need = f"{max(count, 1)} × {workers.cores} cores" + (f" and {max(count, 1)} GPUs" if gpu else "")
        raise UsageError(f"the workers need {need}; the cluster has {cores} and {gpus}")
    return count
