"""From shapes to a label map: which pixels each covers, and who lies on top.

A pixel belongs to a polygon if its centre does, (x + ½, y + ½) with the image's corner at (0, 0), by the even-odd
rule and half-open: of two polygons that share a border, each pixel at the border goes to exactly one. Shapes are laid
down by their layer, where a tool has layers, and then by area: the largest first, so that small parts stay on top.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]
MOST_POINTS = 1_000_000
"""Of one shape; more is no drawing."""


class BadShapeError(ValueError):
    """A shape that cannot be painted; the message says why."""


@dataclass(frozen=True)
class Patch:
    """The pixels of a shape: ``bits`` (h, w), its first pixel at (top, left) of the image."""

    top: int
    left: int
    bits: Bits


Draw = Callable[[int, int], Patch]


@dataclass(frozen=True)
class Shape:
    """A part of an image of one class: ``draw(height, width)`` gives its pixels. A higher ``layer`` lies on top."""

    name: str
    draw: Draw
    layer: int = 0


def paint(
    shapes: Iterable[Shape],
    size: tuple[int, int],
    value: Callable[[str], int],
    ground: int,
    refused: Callable[[str], None],
) -> npt.NDArray[np.uint8]:
    """Return the label map (H, W) of ``shapes`` on ``ground``. A shape that cannot be painted goes to ``refused``."""
    height, width = size
    label = np.full(size, ground, np.uint8)
    patches = []
    for number, shape in enumerate(shapes):
        try:
            patch = shape.draw(height, width)
        except BadShapeError as error:
            refused(f"{shape.name}: {error}")
            continue
        area = int(patch.bits.sum())
        if not area:
            refused(f"{shape.name}: it covers no pixel's centre")
            continue
        patches.append((shape.layer, -area, number, value(shape.name), patch))
    for *_, index, patch in sorted(patches, key=lambda entry: entry[:3]):
        h, w = patch.bits.shape
        label[patch.top : patch.top + h, patch.left : patch.left + w][patch.bits] = index
    return label


def polygon(parts: Sequence[Sequence[Ring]]) -> Draw:
    """Return what draws the union of ``parts``; each is a list of rings (N, 2) of x and y, of which the even-odd rule
    makes holes.
    """

    def draw(height: int, width: int) -> Patch:
        points = sum(len(ring) for part in parts for ring in part)
        if points > MOST_POINTS:
            raise BadShapeError(f"expected at most {MOST_POINTS} points, found {points}")
        for ring in (ring for part in parts for ring in part):
            if len(ring) < 3:
                raise BadShapeError(f"expected a polygon of at least 3 points, found {len(ring)}")
            if not np.isfinite(ring).all():
                raise BadShapeError("expected finite coordinates")
        everything = np.concatenate([ring for part in parts for ring in part] or [np.zeros((1, 2))])
        left, top = (max(0, math.floor(min(1e9, max(-1e9, v)))) for v in everything.min(0))
        right, bottom = (math.ceil(min(1e9, max(-1e9, v))) for v in everything.max(0))
        right, bottom = min(width, right), min(height, bottom)
        if right <= left or bottom <= top:
            return Patch(0, 0, np.zeros((0, 0), bool))
        bits = np.zeros((bottom - top, right - left), bool)
        for part in parts:
            bits |= _inside([ring - (left, top) for ring in part], *bits.shape)
        return Patch(top, left, bits)

    return draw


def _inside(rings: Sequence[Ring], height: int, width: int) -> Bits:
    """Even-odd: in each row whose centre an edge crosses, it toggles all pixels right of the crossing."""
    toggles = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0)):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0  # the same crossing whichever way two neighbours walk the edge
            first, last = max(0, math.ceil(max(y0, -1) - 0.5)), min(height, math.ceil(min(y1, height + 1) - 0.5))
            if first >= last:
                continue
            rows = np.arange(first, last)
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
            np.add.at(toggles, (rows, columns), 1)
    return (toggles.cumsum(1)[:, :width] % 2).astype(bool)


def box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> Draw:
    """Return what draws a rectangle, turned clockwise about its centre."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
    return polygon([[_turned(corners, (left + right) / 2, (top + bottom) / 2, degrees)]])


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Draw:
    """Return what draws an ellipse, as a polygon that nowhere leaves it by a hundredth of a pixel."""
    count = min(20_000, max(32, math.ceil(23 * math.sqrt(max(1.0, abs(radius_x), abs(radius_y))))))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    ring = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1)
    return polygon([[_turned(ring, x, y, degrees)]])


def _turned(points: Ring, x: float, y: float, degrees: float) -> Ring:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = points - (x, y)
    return moved @ np.array([[c, s], [-s, c]]) + (x, y) if degrees else points


def bitmap(bits: Bits, left: int = 0, top: int = 0) -> Draw:
    """Return what draws ``bits`` with their first pixel at (top, left); what lies outside the image is cut off."""

    def draw(height: int, width: int) -> Patch:
        y, x = max(0, top), max(0, left)
        h, w = bits.shape
        return Patch(y, x, bits[y - top : max(0, min(h, height - top)), x - left : max(0, min(w, width - left))])

    return draw


def counted(counts: Sequence[int], size: tuple[int, int], order: str) -> Bits:
    """Return a mask (H, W) of run lengths, outside first; ``order``: "F" by columns, as COCO, "C" by rows, as CVAT."""
    numbers = np.asarray(counts)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise BadShapeError("expected run lengths, whole numbers of at least 0")
    if int(numbers.sum()) != size[0] * size[1]:
        raise BadShapeError(f"expected run lengths of {size[0] * size[1]} pixels in all, found {int(numbers.sum())}")
    values = np.arange(len(numbers)) % 2 == 1
    return np.repeat(values, numbers).reshape(size, order="F" if order == "F" else "C")
