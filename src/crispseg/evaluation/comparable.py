"""What has to be alike in evaluations for their difference to mean anything, and what must not be.

Not here: the comparison (``compare``).
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from crispseg.errors import UsageError
from crispseg.evaluation.suite import Evaluation

Sides = Mapping[str, Sequence[Evaluation]]
TRUTH = {
    "region": (slice(None), 2),
    "boundary_iou": (slice(None), 2),
    "boundary_f": (slice(None), 1, -1),
    "trimap": (slice(None), slice(None), 2),
}
"""Where in each table of counts (N, …) the truth alone speaks."""


def check(sides: Sides) -> Evaluation:
    """Return the first evaluation, one that all others can be compared with.

    Raises ``UsageError``, naming what differs, for fewer than two sides; other images, classes, void or settings; other
    truths, be they of another size; or one training that is given twice.
    """
    if len(sides) < 2:
        raise UsageError(f"a comparison needs two contenders, found {len(sides)}")
    baseline, (first, *_) = next(iter(sides.items()))
    for name, runs in sides.items():
        for run in runs:
            _alike(name, run, baseline, first)
        if len({id(run) for run in runs}) < len(runs):
            raise UsageError(f"{name}: expected different trainings, found the same one twice")
    return first


def _alike(name: str, run: Evaluation, baseline: str, first: Evaluation) -> None:
    mine, theirs = _measured(run), _measured(first)
    for what, parts in mine.items():
        for a, b in zip_longest(parts, theirs[what]):
            if a != b:
                raise UsageError(f"{name} was not measured on the same {what} as {baseline}: expected {b}, found {a}")
    size, other = (e.counts["region"][:, 2].sum(-1) for e in (first, run))
    if (at := (size != other).nonzero().flatten()).numel():
        i = int(at[0])
        raise UsageError(
            f"{name} was not measured on the same truth as {baseline}: expected {int(size[i])} labelled pixels in "
            f"image {run.names[i]}, found {int(other[i])}; another size (--label-size), or another void"
        )
    for table, place in TRUTH.items():
        expected, found = first.counts[table][place], run.counts[table][place]
        if (at := (expected != found).nonzero()).numel():
            i, c = int(at[0, 0]), int(at[0, -1])
            raise UsageError(
                f"{name} was not measured on the same truth as {baseline}: in image {run.names[i]}, {table} of class "
                f"{run.classes[c]}, expected {int(expected[tuple(at[0])])} true pixels, "
                f"found {int(found[tuple(at[0])])}"
            )


def _measured(run: Evaluation) -> dict[str, tuple[Any, ...]]:
    return {"images": run.names, "classes": run.classes, "void": (run.ignore_index,), "settings": (run.settings,)}
