"""How often do the intervals of ``crispseg compare`` hold the truth, and how often is a verdict wrong? By simulation.

    python -m benchmarks.coverage                # minutes on one thread; results/coverage.json, docs/metrics.md
    python -m benchmarks.coverage --draws 200    # prints, writes nothing

Many data sets are drawn at once, each with its own images, groups and trainings, and measured by the functions that
``compare`` calls. **An image** has six classes from large to small, of sizes that vary, the smaller ones not in each.
Its difficulty, and how it suits each of the two methods, are drawn for each class; so is how each training takes it.
**A training** shifts its method's errors as a whole and class by class, by little or by much. *Grouped* images share
most of what they have with the four others of their group.

In half of the data sets the two methods are equal. There a **verdict**, on three metrics that are not independent (mIoU
of three kinds of pixels, of which each image has more or fewer errors), is wrong if it says better or worse. In the
other half one gains, by its truth over a hundred thousand images and many trainings; **held** is the share of all data
sets in which the interval of the first metric holds the truth.

Not here: the statistics (``crispseg.evaluation.intervals``).
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import save
from crispseg.evaluation import Side, estimate, holm, paired_bootstrap
from crispseg.evaluation.intervals import groups_of_means
from crispseg.evaluation.verdict import CALLED
from crispseg.files import write_text
from crispseg.metrics.miou import region_ratios

DOCS = Path("docs/metrics.md")
SIZE = torch.tensor([3000.0, 2000, 1500, 500, 200, 80])
THERE = torch.tensor([1.0, 1, 1, 0.9, 0.8, 0.7])
HARD = torch.tensor([-3.2, -2.5, -2.0, -1.2, -0.6, 0.0])
KINDS = ("inner", "band", "contour")
HARDER = torch.tensor([0.0, 0.6, 1.0])
"""Of the three kinds of pixels, the logit of an error above that of the first."""
SUITS, TAKES = 0.25, 0.3
"""Standard deviations, in logits of an error: of how an image suits a method, and of how a training takes an image."""
NOISE = {"small": 0.02, "large": 0.08}
"""Likewise, of what a training does to all images."""
GAIN = 0.12
TRAININGS = ((2, 2), (3, 3), (5, 5), (10, 10), (2, 5), (3, 10), (1, 5))
IMAGES = (20, 50, 200, 500)
GROUP = 5
SAMPLES = 200
BATCH = 100
"""Data sets at once: what bounds the memory."""


@dataclass(frozen=True)
class World:
    """One cell of the table: how many trainings of each method, how many images, in groups or not, and the noise."""

    trainings: tuple[int, int]
    images: int
    grouped: bool
    noise: str
    gain: float = 0.0


def simulate(world: World, draws: int, seed: int) -> Iterator[tuple[list[Side], Tensor]]:
    """Yield batches of data sets: the ``Side`` of both methods, (…, D, 3) for data sets and kinds of pixels; groups."""
    generator = torch.Generator().manual_seed(seed)
    size = GROUP if world.grouped else 1
    group = torch.arange(world.images) // size
    for start in range(0, draws, BATCH):
        sides = _counts(world, min(BATCH, draws - start), generator)
        drawn = paired_bootstrap(sides, group, _measure, samples=SAMPLES, seed=seed + start)
        totals = [torch.stack([_measure({"n": run["n"].sum(0)})["miou"] for run in side]) for side in sides]
        found = [Side(values, replicates["miou"]) for values, replicates in zip(totals, drawn)]
        weight = torch.zeros(int(group[-1]) + 1, *sides[0][0]["n"].shape[1:3], len(SIZE), dtype=torch.float64)
        weight.index_add_(0, group, sides[0][0]["n"][..., 2, :].double())
        yield found, groups_of_means(weight)


def coverage(world: World, draws: int, *, seed: int = 0) -> dict[str, float]:
    """Return the share of data sets whose interval holds the truth, and of equal methods told apart by the verdict."""
    half, held, called = draws // 2, 0, 0
    for gain in (0.0, GAIN):
        one, true = replace(world, gain=gain), truth(world.noise, gain)
        for (baseline, side), groups in simulate(one, half, seed):
            found = estimate(side, baseline, groups=groups)
            held += int(((found.low <= true) & (true <= found.high))[:, 0].sum())
            if not gain:
                called += sum(bool((holm(p) < CALLED).any()) for p in found.p)
        seed += 1
    return {"held": held / (2 * half), "called": called / half}


@cache
def truth(noise: str, gain: float) -> Tensor:
    """The difference of the two methods in mIoU of each kind of pixels, (3,), over very many images and trainings."""
    if gain == 0:
        return torch.zeros(len(KINDS), dtype=torch.float64)
    many, generator = World((8, 8), 1000, False, noise, gain), torch.Generator().manual_seed(7)
    gains = torch.zeros(len(KINDS), dtype=torch.float64)
    for _ in range(10):
        base, side = (torch.stack([run["n"].sum(0) for run in runs]) for runs in _counts(many, 10, generator))
        gains += (_measure({"n": side})["miou"] - _measure({"n": base})["miou"]).mean((0, 1)) / 10
    return gains


def _counts(world: World, sets: int, generator: torch.Generator) -> list[list[dict[str, Tensor]]]:
    """Of each method the trainings, each its integers of every image, {"n": (N, D, 3 kinds, 3, C)}."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def of_images(*shape: int) -> Tensor:
        own = normal(world.images, *shape)
        if not world.grouped:
            return own
        shared = normal(-(-world.images // GROUP), *shape).repeat_interleave(GROUP, 0)[: world.images]
        return math.sqrt(0.8) * shared + math.sqrt(0.2) * own

    classes, kinds = len(SIZE), len(KINDS)
    step = GROUP if world.grouped else 1
    there = torch.rand(-(-world.images // step), sets, classes, generator=generator) < THERE
    there = there.repeat_interleave(step, 0)[: world.images]
    true = ((SIZE * (0.6 * of_images(sets, classes)).exp()).round() * there)[:, :, None]  # (N, D, 1, C)
    difficulty = HARD + 0.8 * of_images(sets, classes)[:, :, None] + HARDER[:, None]
    out: list[list[dict[str, Tensor]]] = []
    for method, number in enumerate(world.trainings):
        suited = difficulty + SUITS * of_images(sets, kinds, classes) - method * world.gain
        runs = []
        for _ in range(number):
            shift = 0.7 * NOISE[world.noise] * (normal(sets, 1, 1) + normal(sets, 1, classes))
            error = (suited + shift + TAKES * normal(world.images, sets, kinds, classes)).sigmoid()
            missed = (error * true).round()
            given = (missed @ _given()).round()
            both = true - missed
            runs.append({"n": torch.stack([both, both + given, true.expand_as(both)], -2).to(torch.int32)})
        out.append(runs)
    return out


@cache
def _given() -> Tensor:
    """(C, C): to which other class the missed pixels of one go, by size."""
    to: Tensor = (1 - torch.eye(len(SIZE))) * SIZE**0.7
    return to / to.sum(1, keepdim=True)


def _measure(counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    iou = region_ratios(counts["n"])[..., :-1]
    return {"miou": iou.where(counts["n"][..., 2, :] > 0, torch.nan).nanmean(-1)}


def worlds() -> list[World]:
    """Every cell of the table."""
    return [
        World(trainings, images, grouped, noise)
        for trainings in TRAININGS
        for images in IMAGES
        for grouped in (False, True)
        for noise in NOISE
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown table of the rows of the JSON: held / called, in %."""
    columns = [(noise, grouped) for noise in NOISE for grouped in (False, True)]
    head = ["trainings", "images", *(f"{noise} noise{', grouped' if grouped else ''}" for noise, grouped in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|" + "---:|" * len(columns)]
    found = {(*row["trainings"], row["images"], row["noise"], row["grouped"]): row for row in rows}
    for a, b in TRAININGS:
        for images in IMAGES:
            cells = [found[a, b, images, *column] for column in columns]
            shown = [f"{100 * cell['held']:.1f} / {100 * cell['called']:.1f}" for cell in cells]
            lines.append(f"| {a} + {b} | {images} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=0, help="data sets a cell; prints instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draws = arguments.draws or 1000
    rows = []
    for world in worlds():
        rows.append({**asdict(world), "draws": draws, **coverage(world, draws)})
        print(json.dumps(rows[-1]), flush=True)
    if arguments.draws:
        return
    path = save("coverage", rows)
    stamp, text = json.loads(path.read_text())["stamp"], DOCS.read_text()
    foot = f"In %, of {draws} data sets a cell; torch {stamp['torch']}, commit {stamp['commit']}, {stamp['date'][:10]}."
    start, end = text.index("-->", text.index("<!-- coverage")) + 3, text.index("<!-- /coverage")
    write_text(DOCS, text[:start] + "\n" + table(rows) + "\n\n" + foot + "\n" + text[end:])
    print(path)


if __name__ == "__main__":
    main()
