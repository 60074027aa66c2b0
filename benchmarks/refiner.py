"""What ``crispseg refine`` takes of one mask: the sizes of CamVid and of Cityscapes, their classes, scores of stride 8.

    python -m benchmarks.refiner                       # into benchmarks/results/refiner.json
    python -m benchmarks.refiner --table               # no measurement: the table, into docs/refinement.md

Pictures and masks are generated (``crispseg.data.patchwork``). Processor time of one thread, which other work on the
machine does not change much; and the time that passes with two threads, which needs a quiet machine.

Not here: how good the answer is (``experiments.refiners``).
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import RESULTS, calls, interleaved, medians, peak_memory, save
from crispseg.data.patchwork import patchwork
from crispseg.data.patchwork.coarse import predicted
from crispseg.refinement import read_refiner, refine
from experiments.table import line, replace_table

SIZES = {(360, 480): 11, (1024, 2048): 19}
REFINERS = ("crispseg", "guided", "diffusion")
PAGE = Path("docs/refinement.md")


def case(size: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Probabilities (K, H, W) and an image uint8 (3, H, W)."""
    image, label = patchwork((1, *size), size)
    spread = (label.astype(int) * 3 % classes).astype(np.uint8)
    p = predicted(np.random.default_rng(1), spread, classes, 8.0)
    return torch.from_numpy(p), torch.from_numpy(image).permute(2, 0, 1).contiguous()


def _two(row: dict[str, Any]) -> str:
    return "–" if row.get("two_threads") is None else f"{1000 * row['two_threads']:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        rows = []
        for size, classes in SIZES.items():
            p, image = case(size, classes)
            rivals: dict[str, Callable[[], object]] = {
                name: partial(refine, p, image, read_refiner(name), kind="probabilities") for name in REFINERS
            }
            torch.set_num_threads(2)
            passed = medians(interleaved({"crispseg": rivals["crispseg"]}, seconds=arguments.seconds))
            torch.set_num_threads(1)
            times = interleaved(rivals, seconds=arguments.seconds, clock=time.process_time)
            for name, seconds in medians(times).items():
                row = {"size": size, "classes": classes, "refiner": name, "seconds": seconds, "calls": calls(times)}
                rows.append({**row, "two_threads": passed.get(name), "bytes": peak_memory(rivals[name])})
                print(rows[-1], flush=True)
        save("refiner", rows)
    found = json.loads((RESULTS / "refiner.json").read_text())
    head = ["mask", "crispseg, two cores", *REFINERS]
    lines = [line(head), "|---|" + "---:|" * (len(head) - 1)]
    for size, classes in SIZES.items():
        mine = {row["refiner"]: row for row in found["rows"] if tuple(row["size"]) == size}
        cells = [f"{1000 * mine[r]['seconds']:.0f} ms, {mine[r]['bytes'] / 1e6:.0f} MB" for r in REFINERS]
        lines.append(line([f"{size[1]}×{size[0]}, {classes} classes", _two(mine["crispseg"]), *cells]))
    at = found["stamp"]
    foot = f"{at['processor']}, torch {at['torch']}, {at['date'][:10]}, commit {at['commit']}."
    text = "\n".join(
        [
            *lines,
            "",
            f"Medians of one call: what passes with two threads, then the processor time of one, with memory. {foot}",
        ]
    )
    print(text)
    if arguments.table:
        replace_table(PAGE, "refiner-speed", text)


if __name__ == "__main__":
    main()
