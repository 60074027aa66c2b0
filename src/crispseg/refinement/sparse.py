"""The refiner at work: ``RefinerNetwork.forward`` of one large map, each part of it only where an answer needs it.

Tile by tile the coarse grid is settled, whole. At full size the network looks at blocks that hold a pixel that may
change, and scores become rows, one a pixel: blending and the last steps are then sums of a few rows each.

Not here: the network (``network``), which pixels may change and what happens to islands (``learned``).
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.refinement.borders import ROWS
from crispseg.refinement.network import (
    COARSE,
    FINE,
    STRIDE,
    SURE,
    Orders,
    RefinerNetwork,
    Surroundings,
    picture,
)
from crispseg.refinement.propagation import FLOOR, Trust, neighbours, step_at

MULTIPLE = 16
"""Of a map that the network looks at: its deepest stride."""
MARGIN = 128
"""Pixels around a tile that the network sees too."""
BLOCK = 256
"""Side of a block, a multiple of 16."""
AROUND = sum(reach.radius * reach.dilation for reach in FINE) + 1
"""Pixels around a block, even, whose rows the last steps read; ``FURTHER`` more than these the convolutions read."""
FURTHER = 4


class Window(NamedTuple):
    """A rectangle of a map."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def at(self) -> tuple[slice, slice]:
        """As an index of the last two dimensions: ``x[..., *window.at]``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def height(self) -> int:
        """Of its rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Of its columns."""
        return self.right - self.left

    def grown(self, by: int, within: "Window") -> "Window":
        """``by`` px larger on each side, where ``within`` has them."""
        return Window(
            max(self.top - by, within.top),
            min(self.bottom + by, within.bottom),
            max(self.left - by, within.left),
            min(self.right + by, within.right),
        )

    def seen_from(self, other: "Window") -> "Window":
        """The same pixels, counted from the first of ``other``."""
        return Window(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)

    def evened(self) -> "Window":
        """One row or column more where its end is odd; it begins at even ones."""
        return Window(self.top, self.bottom + self.bottom % 2, self.left, self.right + self.right % 2)

    def halved(self) -> "Window":
        """The same place on a grid of half the size."""
        return Window(*(x // 2 for x in self))

    def parts(self, side: int) -> Iterator["Window"]:
        """Squares of ``side`` px that cover it, those at the end smaller."""
        for top in range(self.top, self.bottom, side):
            for left in range(self.left, self.right, side):
                yield Window(top, min(top + side, self.bottom), left, min(left + side, self.right))


def sharpen(
    network: RefinerNetwork, p: Tensor, image: Tensor, most: Tensor, band: Tensor, tile: int
) -> Iterator[tuple[Window, Tensor]]:
    """Yield windows of a map and the new probabilities there, (K, h, w); they do not overlap. Elsewhere p stays.

    p (K, H, W), image (3, H, W), ``most`` (H, W) the largest of p, ``band`` (H, W) the pixels that may change. Windows
    begin at multiples of 16, so that every tile has the grid of the whole map.
    """
    whole = Window(0, p.shape[1], 0, p.shape[2])
    for core in whole.parts(max(1, round(tile / MULTIPLE)) * MULTIPLE):
        if not bool(band[core.at].any()):
            continue
        seen = core.grown(MARGIN, whole)
        right_down = (0, -seen.width % MULTIPLE, 0, -seen.height % MULTIPLE)
        p_seen, image_seen, most_seen = (
            F.pad(x[None], right_down, mode="replicate")[0] if any(right_down) else x
            for x in (x[..., *seen.at] for x in (p, image, most[None]))
        )
        yield from _tile(network, p_seen, image_seen, most_seen, band, core, seen)


def _tile(
    network: RefinerNetwork, p: Tensor, image: Tensor, most: Tensor, band: Tensor, core: Window, seen: Window
) -> Iterator[tuple[Window, Tensor]]:
    squares, P = _pooled(p)
    x, surroundings = picture(image[None], most[None], squares[None, None]), Surroundings.of(P[None])
    coarse, y2 = network.look(x, surroundings)
    Q = network.settle(surroundings, coarse)
    table = torch.cat([maps[0].flatten(1).t() for maps in (surroundings.near, Q)])
    cells = (P.shape[1], P.shape[2])
    there = Window(0, p.shape[1], 0, p.shape[2])
    changing = torch.zeros(p.shape[1:], dtype=torch.bool, device=p.device)
    changing[: seen.height, : seen.width] = band[seen.at]
    for block in core.parts(BLOCK):
        if not bool(band[block.at].any()):
            continue
        near = block.seen_from(seen).grown(AROUND, there)
        wide = near.grown(FURTHER, there).evened()
        fine = network.closely(x[..., *wide.at], y2[..., *wide.halved().at])
        fine = Orders(*(part[..., *near.seen_from(wide).at] for part in fine))
        rows = p[:, *near.at].flatten(1).t().contiguous()  # a copy, whatever the window
        _move(rows, table, fine, network.epsilons()[len(COARSE) :], changing[near.at], near, cells)
        inner = block.seen_from(seen).seen_from(near)
        yield block, rows.unflatten(0, (near.height, near.width))[inner.at].permute(2, 0, 1)


def _move(
    rows: Tensor, table: Tensor, fine: Orders, epsilons: Tensor, band: Tensor, near: Window, cells: tuple[int, int]
) -> None:
    """Change the rows of the pixels of ``band`` in a window: blend in the coarse grid's, then take the last steps."""
    v, mix, trust = (part[0].flatten(1).t() for part in fine)
    pixels = band.flatten().nonzero()[:, 0]
    at, share = (x.index_select(0, pixels) for x in _corners(near, cells, rows.device))
    mix = mix.index_select(0, pixels)
    shares = torch.cat([share * mix[:, 1:2], share * mix[:, 2:3]], 1)
    from_grid = F.embedding_bag(
        torch.cat([at, at + cells[0] * cells[1]], 1), table, per_sample_weights=shares, mode="sum"
    )
    mixed = torch.addcmul(from_grid, rows.index_select(0, pixels), mix[:, :1])
    rows.index_copy_(0, pixels, mixed)
    active = pixels[mixed.amax(1) < SURE]
    if not len(active):
        return
    v = v.contiguous()
    beta, gamma = F.softplus(trust.index_select(0, active)).split(len(FINE), 1)
    log_prior = (rows.index_select(0, active) + FLOOR).log()
    for i, reach in enumerate(FINE):
        at = neighbours(active, reach, (near.height, near.width))
        step = Trust(beta[:, i : i + 1], gamma[:, i : i + 1], epsilons[i])
        rows.index_copy_(0, active, step_at(active, at, rows, log_prior, v, step))


def _corners(near: Window, cells: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The four cells around each pixel of a window and their shares, (n, 4): bilinear, as ``network.enlarged``."""
    (up, down, y), (left, right, x) = (
        _axis(start, end, count, device)
        for start, end, count in ((near.top, near.bottom, cells[0]), (near.left, near.right, cells[1]))
    )
    at = [row[:, None] * cells[1] + column for row in (up, down) for column in (left, right)]
    share = [row[:, None] * column for row in (1 - y, y) for column in (1 - x, x)]
    return torch.stack(at, -1).flatten(0, 1), torch.stack(share, -1).flatten(0, 1)


def _axis(start: int, end: int, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the cell before each pixel, the one after it, and the share of the latter."""
    place = ((torch.arange(start, end, device=device) + 0.5) / STRIDE - 0.5).clamp(min=0)
    first = place.long()
    return first, (first + 1).clamp(max=count - 1), place - first


def _pooled(p: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_k p² (H, W), and the means of p on the coarse grid (K, h, w). A few rows at a time stay in a core's cache."""
    squares = p.new_empty(p.shape[1:])
    P = p.new_empty(p.shape[0], p.shape[1] // STRIDE, p.shape[2] // STRIDE)
    for top in range(0, p.shape[1], ROWS):
        rows = p[:, top : top + ROWS]
        torch.sum(rows.square(), 0, out=squares[top : top + ROWS])
        down = _total([rows[:, i::STRIDE] for i in range(STRIDE)])
        torch.mul(
            sum(down[..., i::STRIDE] for i in range(STRIDE)),
            STRIDE**-2,
            out=P[:, top // STRIDE : (top + ROWS) // STRIDE],
        )
    return squares, P


def _total(parts: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)
