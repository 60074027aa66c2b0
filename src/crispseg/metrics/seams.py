"""Seams: does a picture that was predicted by windows differ more from one whole pass where windows meet?

Not here: where they meet (``crispseg.inference``).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from crispseg.metrics.boundary_f import tolerances_missed
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import contour
from crispseg.metrics.scores import f_score, ratio

NEAR = 16
"""Px to either side of a seam that are near it."""


def seam_difference(
    pred: Tensor,
    whole: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    d: int = NEAR,
    tolerance: float = 1,
) -> dict[str, Any]:
    """Compare labels near seams with labels elsewhere, each with those of one whole pass.

        D = #{near, pred ≠ whole} / #near − #{elsewhere, pred ≠ whole} / #elsewhere

    Near is within ``d`` px of a seam, to either side. What differs elsewhere differs for another reason than seams: a
    network that looks at everything answers otherwise for a window than for the picture. Boundary F, of ``pred``
    against ``whole``, is of the boundary pixels near seams and of those elsewhere.

    The interval is a jackknife over the cells between seams (a few hundred px on a side, so nearly independent), with
    Student's t. One that holds 0 shows no seam.

    Parameters
    ----------
    pred, whole
        Labels (H, W), integer.
    rows, columns
        Where seams lie: y is between the rows y − 1 and y.
    num_classes, ignore_index
        As in :class:`crispseg.metrics.MeanIoU`; what is void in ``whole`` counts nowhere.
    d
        Distance in px, at least 1.
    tolerance
        Of boundary F, in px.

    Returns
    -------
    dict
        ``near``, ``elsewhere``: shares of pixels that differ; ``difference``: D; ``interval``: (low, high) of D at
        95 %, NaN for fewer than two cells; ``boundary_f``: (near, elsewhere); ``pixels``: (near, elsewhere) that count;
        ``cells``: of those that hold such pixels; ``d``.

    Raises
    ------
    ValueError, TypeError
        ``d`` is below 1, a seam lies outside, or the maps do not fit: see :func:`crispseg.metrics.labels.codes`.

    Examples
    --------
    >>> whole = torch.zeros(8, 64, dtype=torch.long)
    >>> pred = whole.clone()
    >>> pred[:, 31:33] = 1
    >>> found = seam_difference(pred, whole, [], [32], num_classes=2, d=4)
    >>> found["near"], found["elsewhere"]
    (0.25, 0.0)
    """
    counts = seam_counts(pred, whole, rows, columns, num_classes, ignore_index, d=d, tolerance=tolerance)
    return {**seam_scores(counts), "d": d}


def seam_counts(
    pred: Tensor,
    whole: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    d: int = NEAR,
    tolerance: float = 1,
) -> Tensor:
    """Return the integers of :func:`seam_difference`, int64 (cells, 6, 2), near seams and elsewhere.

    The six: pixels that count, those that differ; boundary pixels of ``pred``, those matched in ``whole``; the same
    with the two exchanged. Those of several pictures are put together along the cells.
    """
    p, t = codes(pred, whole, num_classes, ignore_index)
    height, width = t.shape[-2:]
    if d < 1:
        raise ValueError(f"d must be at least 1 px, found {d}")
    for lines, length in ((rows, height), (columns, width)):
        if any(not 0 < line < length for line in lines):
            raise ValueError(f"seams must lie inside the picture, 1…{length - 1}, found {sorted(lines)}")
    (near_y, cell_y), (near_x, cell_x) = _side(height, rows, d), _side(width, columns, d)
    cells = (len(rows) + 1) * (len(columns) + 1)
    place = 2 * (cell_y[:, None] * (len(columns) + 1) + cell_x) + ~(near_y[:, None] | near_x)

    def tally(mask: Tensor) -> Tensor:
        """How many pixels of a mask (1, H, W) are near and elsewhere, in each cell: (cells, 2)."""
        return torch.bincount(place[mask[0].cpu()], minlength=2 * cells).view(cells, 2)

    edges = contour(p), contour(t)
    found = [tally(t.bool()), tally(p != t)]
    for edge, missed in zip(edges, tolerances_missed(*edges, [tolerance])):
        found += [tally(edge.bool()), tally(edge.bool() & (missed == 0))]
    return torch.stack(found, dim=1)


def seam_scores(counts: Tensor) -> dict[str, Any]:
    """Return what :func:`seam_difference` says, but for ``d``, from :func:`seam_counts` of one picture or several."""
    counted, wrong, *boundary = counts.unbind(1)
    seen = counted.sum(1) > 0  # a cell that is all void says nothing of how cells vary
    counted, wrong = counted[seen], wrong[seen]
    rate = ratio(wrong.sum(0), counted.sum(0))
    difference = float(rate[0] - rate[1])
    without = ratio(wrong.sum(0) - wrong, counted.sum(0) - counted)
    of_pred, pred_hit, of_whole, whole_hit = (part.sum(0) for part in boundary)
    near, elsewhere = f_score(ratio(pred_hit, of_pred), ratio(whole_hit, of_whole)).tolist()
    return {
        "near": float(rate[0]),
        "elsewhere": float(rate[1]),
        "difference": difference,
        "interval": _interval(difference, without[:, 0] - without[:, 1]),
        "boundary_f": (near, elsewhere),
        "pixels": tuple(counted.sum(0).tolist()),
        "cells": len(counted),
    }


def _side(length: int, lines: Sequence[int], d: int) -> tuple[Tensor, Tensor]:
    """Whether each pixel of a side is near a line, and how many lines are before it."""
    at, seams = torch.arange(length), torch.tensor(sorted(lines), dtype=torch.long)
    near = ((at[:, None] + 0.5 - seams).abs() < d).any(1)
    return near, torch.searchsorted(seams, at, right=True)


def _interval(difference: float, without: Tensor) -> tuple[float, float]:
    """95 % by the jackknife: ``without`` one cell each."""
    n = len(without)
    if n < 2:
        return math.nan, math.nan
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    reach = float(stdtrit(n - 1, 0.975)) * error
    return difference - reach, difference + reach
