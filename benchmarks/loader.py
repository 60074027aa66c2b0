"""What decoded pictures in memory cost beside loader processes: kept once for all, or by each as without such memory.

    python -m benchmarks.loader           # writes benchmarks/results/loader.json; half a minute
    python -m benchmarks.loader --table   # writes the table in docs/training.md, from the results

Memory is the proportional set size (PSS) of the process and its loaders together, after epochs enough that each loader
has seen each picture, less that of the same loaders without a cache.

Not here: the cache (``crispseg.data.cache``), what loading costs in time.
"""

import argparse
import multiprocessing
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import RESULTS, save
from benchmarks.operator_page import read, table
from crispseg.data import ClassSet, Sample, SegmentationDataset, dataset
from crispseg.data.cache import OwnCache, make_cache
from crispseg.data.classes import default_palette
from experiments.table import replace_table

PAGE = RESULTS.parents[1] / "docs" / "training.md"
PICTURES, SIZE, EPOCHS = 48, (720, 960), 4
WORKERS = (1, 4)
WAYS = {"once for all": make_cache, "in each": OwnCache}


def pss(pid: int) -> int:
    """Proportional set size of a process in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def pictures(root: Path) -> list[Sample]:
    """Write pictures and labels."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(PICTURES):
        image, label = root / f"{i}.jpg", root / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 2, SIZE, dtype=np.uint8)).save(label)
        samples.append(Sample(str(i), image, label))
    return samples


class Loads(Dataset[int]):
    """What loads a sample and gives nothing: memory is then that of the samples, not of what is handed over."""

    def __init__(self, data: SegmentationDataset) -> None:
        self.data = data

    def __getitem__(self, index: int) -> int:
        self.data.load(index)
        return index


def memory(samples: list[Sample], way: str, workers: int, room: int) -> int:
    """Bytes that a process and its loaders take together once every loader has seen every picture."""
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    process = fork.Process(target=_measure, args=(samples, way, workers, room, writer))
    process.start()
    found: int = reader.recv()
    process.join()
    return found


def _measure(samples: list[Sample], way: str, workers: int, room: int, writer: Any) -> None:
    warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
    with mock.patch.object(dataset, "make_cache", WAYS[way]):
        data = SegmentationDataset(samples, ClassSet(("a", "b"), default_palette(2)), cache_bytes=room)
    n = len(samples)
    order = [(i + shift) % n for shift in range(EPOCHS) for i in range(n)]  # a picture meets every loader
    how: dict[str, Any] = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork"}
    found: Any = iter(DataLoader(Loads(data), sampler=order, batch_size=None, **how))
    for _ in order:
        next(found)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    writer.send(sum(map(pss, [os.getpid(), *map(int, children)])))


def page(rows: list[dict[str, Any]], stamp: dict[str, Any]) -> str:
    """The table and, below it, what was measured where."""
    if not rows:
        return "not measured yet"
    pixels = rows[0]["picture_bytes"] / 2**20
    cells = [[way, *(f"{row['cache_bytes'] / 2**20:.0f} MiB" for row in rows if row["way"] == way)] for way in WAYS]
    head = ["kept", *(f"{n} loader process{'es' * (n > 1)}" for n in sorted({row["workers"] for row in rows}))]
    where = f"{stamp['processor']}, torch {stamp['torch']}, commit {stamp['commit']}"
    return "\n".join([*table(head, cells), "", f"Pictures of {pixels:.0f} MiB, decoded. {where}."])


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    if parser.parse_args().table:
        replace_table(PAGE, "loader", page(*read("loader")))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        samples = pictures(Path(folder))
        size = 4 * PICTURES * SIZE[0] * SIZE[1]
        for workers in WORKERS:
            without = memory(samples, "in each", workers, 0)
            for way in WAYS:
                cached = memory(samples, way, workers, 2 * size) - without
                rows.append({"way": way, "workers": workers, "picture_bytes": size, "cache_bytes": cached})
                print(f"{workers} loaders, {way}: {cached / 2**20:.0f} MiB for pictures of {size / 2**20:.0f} MiB")
    save("loader", rows)


if __name__ == "__main__":
    main()
