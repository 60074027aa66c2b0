"""Windows over a picture and how their answers become one: every window is answered once, and rows complete in order.

    z(y, x) = Σ_{i, j} r_i(y) c_j(x) z_{ij}(y, x),   Σ_i r_i = Σ_j c_j = 1

Weights are a product of one profile for rows and one for columns. Within an overlap of v px a profile is 0 up to v/4
from the window's border, where the model saw least of what surrounds a pixel; it rises by Hann's half period over the
next v/2, and is 1 from there on. At the picture's own border nothing falls: no other window saw more.

Not here: models, pictures, files.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product, zip_longest

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """One window's side: pixels ``start`` to ``stop``, and their weights (stop − start,), which sum to 1 over spans."""

    start: int
    stop: int
    weights: Tensor

    def cut(self) -> slice:
        """Return the pixels as a slice."""
        return slice(self.start, self.stop)

    def counted(self) -> "Span":
        """Return the part of it whose weights are not 0."""
        at = self.weights.nonzero().flatten().tolist()
        first, last = at[0], at[-1]
        return Span(self.start + first, self.start + last + 1, self.weights[first : last + 1])

    def inside(self, other: "Span") -> slice:
        """Return this part of ``other`` as a slice of its pixels."""
        return slice(self.start - other.start, self.stop - other.start)


def starts(length: int, window: int, stride: int, align: int = 1) -> list[int]:
    """Return where windows start: at steps of ``stride``, the last one so that it ends at the edge or beyond.

    With ``align`` the last starts at a multiple of it, and is cut at the edge; else it ends there.

    >>> starts(10, 4, 4), starts(10, 4, 4, align=4), starts(3, 4, 4)
    ([0, 4, 6], [0, 4, 8], [0])
    """
    last = -(-max(0, length - window) // align) * align
    return [*range(0, last, stride), last]


def spans(length: int, window: int, stride: int, align: int = 1, *, even: bool = False) -> list[Span]:
    """Return the windows along one side of a picture, with their weights.

    The last window may share more pixels with the one before than others do, up to almost all. It counts in all of
    them, or with ``even`` only in as many as others share, the last ones: so much less is held of what two windows see.

    >>> [(s.start, s.stop, s.weights.tolist()) for s in spans(6, 4, 2)]
    [(0, 4, [1.0, 1.0, 1.0, 0.0]), (2, 6, [0.0, 1.0, 1.0, 1.0])]
    """
    sides = [(start, min(start + window, length)) for start in starts(length, window, stride, align)]
    profiles, total = [], torch.zeros(length, dtype=torch.float64)
    for i, (start, stop) in enumerate(sides):
        profile = torch.ones(stop - start, dtype=torch.float64)
        if start > 0:
            idle = sides[i - 1][1] - (window - stride) - start if even else 0
            profile[:idle] = 0
            profile[idle:] *= _rise(stop - start - idle, window - stride)
        if stop < length:
            profile *= _rise(stop - start, window - stride).flip(0)
        total[start:stop] += profile
        profiles.append(profile)
    return [
        Span(start, stop, (profile / total[start:stop]).float())
        for (start, stop), profile in zip(sides, profiles, strict=True)
    ]


def blend(
    answers: Iterable[Tensor], rows: Sequence[Span], columns: Sequence[Span]
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (rows, columns, weighted sum (…, h, w)) of each part of the picture as it becomes complete.

    ``answers``: one (…, h, w) for each window, row by row. Parts come from left to right, then from top to bottom, and
    do not overlap. What is kept between them is one window, and the rows that also count in the windows below, half an
    overlap of them: memory is linear in width × overlap, and independent of the height.
    """
    seen = zip(product(rows, columns), answers)
    rows, columns = [row.counted() for row in rows], [column.counted() for column in columns]
    below: Tensor | None = None  # sums so far of the rows that count in the next row of windows too
    shared = 0  # how many these are
    deepest = max((upper.stop - lower.start for upper, lower in pairwise(rows)), default=0)
    for row, next_row in zip_longest(rows, rows[1:]):
        complete = (row.stop if next_row is None else next_row.start) - row.start
        left: Tensor | None = None  # sums so far of the columns that the next window sees too
        for column, next_column in zip_longest(columns, columns[1:]):
            (down, across), z = next(seen)
            z = z[..., row.inside(down), column.inside(across)]
            z = z * (row.weights[:, None] * column.weights).to(z)
            begun = 0 if left is None else left.shape[-1]
            if left is not None:
                z[..., :begun] += left
            if below is not None:
                z[..., :shared, begun:] += below[..., :shared, column.start + begun : column.stop]
            done = (column.stop if next_column is None else next_column.start) - column.start
            ready = slice(column.start, column.start + done)
            yield slice(row.start, row.start + complete), ready, z[..., :complete, :done]
            if deepest > 0:
                if below is None:
                    below = z.new_zeros(*z.shape[:-2], deepest, columns[-1].stop)
                below[..., : row.stop - row.start - complete, ready] = z[..., complete:, :done]
            left = z[..., done:]
        shared = row.stop - row.start - complete


def _rise(length: int, overlap: int) -> Tensor:
    """0 in the first quarter of the overlap, sin² over its half, 1 from there on; float64 (length,)."""
    if overlap <= 0:
        return torch.ones(length, dtype=torch.float64)
    t = torch.arange(length, dtype=torch.float64) + 0.5
    return torch.sin(torch.pi / 2 * ((t - overlap / 4) / (overlap / 2)).clamp(0, 1)) ** 2
