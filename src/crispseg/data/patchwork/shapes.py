"""Shapes: which share of a pixel a thing covers, and whether it has the pixel's centre, which decides the label.

Each kind of shape returns (share (H, W) in [0, 1], inside (H, W) bool). What is drawn is drawn at three times the
resolution, as in ``crispseg.data.scenes.canvas``; what is the level set of a field is cut along the field's slope.

Not here: what fills a shape (``surfaces``) and how shapes make a scene (``crispseg.data.patchwork``).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from crispseg.data.patchwork.surfaces import Array, Rng, Size, cloud

Mask = npt.NDArray[np.bool_]
Covered = tuple[Array, Mask]
Draw = ImageDraw.ImageDraw
Path = npt.NDArray[np.floating]
F = 3


def thing(rng: Rng, size: Size) -> Covered:
    """A shape of a random kind, size and place that is something one would point at."""
    kinds, weights = zip(*_THINGS.items(), strict=True)
    kind: Callable[[Rng, Size], Covered] = kinds[int(rng.choice(len(kinds), p=np.divide(weights, sum(weights))))]
    return kind(rng, size)


def part(rng: Rng, size: Size) -> Covered:
    """A shape for a part of a thing, a shadow or a patch of light: smooth, straight or a level set."""
    return (_blob, _polygon, _islands, _bar, land)[int(rng.integers(5))](rng, size)


def detail(rng: Rng, size: Size) -> Covered:
    """A thin shape that is no thing of its own: writing, seams, cracks, twigs, bars."""
    return (_writing, _writing, _wires, _lattice, _branches, _pole)[int(rng.integers(6))](rng, size)


def land(rng: Rng, size: Size) -> Covered:
    """One side of a line across the picture: straight as a wall's, smooth as a hill's, rough as a wood's."""
    height, width = size
    angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2) + shift * min(size)
    amount = rng.choice([0.0, 0.0, 0.03, 0.06]) * min(size)
    return _level(along + amount * cloud(rng, size, rng.uniform(1.0, 2.5)))


def _place(rng: Rng, size: Size) -> tuple[float, float, float]:
    """x, y, and a radius: large things are as likely as small ones, octave by octave."""
    radius = min(size) * np.exp(rng.uniform(np.log(0.05), np.log(0.42)))
    return rng.uniform(-0.05, 1.05) * size[1], rng.uniform(-0.05, 1.05) * size[0], float(radius)


def _round(rng: Rng, x: float, y: float, radius: float, waves: int, amount: float) -> Path:
    """A closed curve (n, 2) around (x, y): a circle, squeezed and turned, with waves."""
    t = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    r = np.ones_like(t)
    for wave in range(2, 2 + waves):
        r += amount / wave * rng.normal() * np.sin(wave * t + rng.uniform(0, 7))
    squeeze, turn = np.exp(rng.normal(0, 0.4)), rng.uniform(0, np.pi)
    a, b = radius * r * np.cos(t) * squeeze, radius * r * np.sin(t) / squeeze
    return np.stack([x + a * np.cos(turn) - b * np.sin(turn), y + a * np.sin(turn) + b * np.cos(turn)], -1)


def _blob(rng: Rng, size: Size) -> Covered:
    curve = _round(rng, *_place(rng, size), int(rng.integers(0, 9)), rng.uniform(0.1, 0.6))
    return _drawn(size, fills=[curve])


def _polygon(rng: Rng, size: Size) -> Covered:
    x, y, radius = _place(rng, size)
    corners = int(rng.integers(3, 11))
    t = np.sort(rng.random(corners) * 2 * np.pi) if rng.random() < 0.5 else np.arange(4) * np.pi / 2 + rng.uniform(0, 7)
    r = radius * (rng.uniform(0.5, 1.3, len(t)) if rng.random() < 0.6 else np.ones(len(t)))
    squeeze = np.exp(rng.normal(0, 0.5))
    points = np.stack([x + r * np.cos(t) * squeeze, y + r * np.sin(t) / squeeze], -1)
    return _drawn(size, fills=[points])


def _bar(rng: Rng, size: Size) -> Covered:
    x, y, radius = _place(rng, size)
    angle, width = rng.uniform(0, np.pi), radius * rng.uniform(0.2, 0.8)
    ends = _ray(x, y, angle, radius * 3)
    return _drawn(size, strokes=[(ends, width)])


def _ragged(rng: Rng, size: Size) -> Covered:
    """A round thing whose border is a fractal: a bush, a rock, smoke, foam."""
    x, y, radius = _place(rng, size)
    yy, xx = np.mgrid[: size[0], : size[1]].astype(np.float32)
    squeeze = np.exp(rng.normal(0, 0.3))
    distance = np.hypot((xx - x) * squeeze, (yy - y) / squeeze)
    return _level(radius - distance + radius * rng.uniform(0.08, 0.35) * cloud(rng, size, rng.uniform(0.9, 2)))


def _islands(rng: Rng, size: Size) -> Covered:
    """A level set of noise near some place: many pieces, holes."""
    x, y, radius = _place(rng, size)
    yy, xx = np.mgrid[: size[0], : size[1]].astype(np.float32)
    near = 1 - (np.hypot(xx - x, yy - y) / (2 * radius)) ** 2
    return _level(near + rng.uniform(0.3, 1) * cloud(rng, size, rng.uniform(1.4, 2.6)))


def _figure(rng: Rng, size: Size) -> Covered:
    """A trunk, a head and limbs with joints: a person, an animal, a chair, a plant."""
    x, y, radius = _place(rng, size)
    axis, half = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else np.pi / 2, radius * rng.uniform(0.25, 0.5)
    trunk = _ray(x, y, axis, radius)
    limbs: list[tuple[Path, float]] = [(trunk, half)]
    for _ in range(int(rng.integers(2, 7))):
        start = trunk[0] + rng.random() * (trunk[1] - trunk[0])
        angle, width = rng.uniform(0, 2 * np.pi), half * rng.uniform(0.15, 0.6)
        knee = start + radius * rng.uniform(0.4, 1) * np.array([np.cos(angle), np.sin(angle)])
        angle += rng.normal(0, 0.8)
        foot = knee + radius * rng.uniform(0.3, 0.9) * np.array([np.cos(angle), np.sin(angle)])
        limbs += [(np.stack([start, knee]), width), (np.stack([knee, foot]), width * rng.uniform(0.5, 1))]
    hx, hy = (trunk[0] - (trunk[1] - trunk[0]) * 0.25).tolist()
    head = _round(rng, hx, hy, half * rng.uniform(0.5, 1), 2, 0.1)
    return _drawn(size, fills=[head], strokes=limbs)


def _furry(rng: Rng, size: Size) -> Covered:
    """A round thing with hairs, leaves or spikes along its border, of which its label mostly knows nothing."""
    x, y, radius = _place(rng, size)
    curve = _round(rng, x, y, radius, 4, 0.3)
    count, length, width = int(rng.integers(60, 400)), radius * rng.uniform(0.08, 0.45), rng.uniform(0.6, 1.8)
    at = rng.random(count) * (len(curve) - 1)
    roots = np.stack([np.interp(at, np.arange(len(curve)), curve[:, i]) for i in (0, 1)], -1)
    out = np.arctan2(roots[:, 1] - y, roots[:, 0] - x) + rng.normal(0, 0.5, count) + rng.normal(0, 0.4)
    tips = roots + (length * rng.random(count))[:, None] * np.stack([np.cos(out), np.sin(out)], -1)
    hairs = [(np.stack([root, tip]), width) for root, tip in zip(roots, tips)]
    share, inside = _drawn(size, fills=[curve], strokes=hairs)
    return share, inside if rng.random() < 0.4 else _drawn(size, fills=[curve])[1]


def _pole(rng: Rng, size: Size) -> Covered:
    """One to four poles, mostly upright; some bear a sign or a lamp."""
    lines: list[tuple[Path, float]] = []
    for _ in range(int(rng.integers(1, 5))):
        x, y, radius = _place(rng, size)
        angle = np.pi / 2 + rng.normal(0, 0.05) if rng.random() < 0.75 else rng.uniform(0, np.pi)
        width = min(rng.uniform(1.2, 8), radius / 2)
        lines.append((_ray(x, y, angle, radius * rng.uniform(1.5, 5)), width))
        if rng.random() < 0.4:
            side = width * rng.uniform(2, 6)
            ex, ey = lines[-1][0][int(rng.integers(2))].tolist()
            lines.append((_ray(ex, ey, angle + rng.choice([0, np.pi / 2]), side), side * rng.uniform(0.4, 1)))
    return _drawn(size, strokes=lines)


def _wires(rng: Rng, size: Size) -> Covered:
    """Long thin curves."""
    height, width = size
    t = np.linspace(-0.05, 1.05, 40)
    curves = []
    for _ in range(int(rng.integers(1, 5))):
        a, b, c = rng.uniform(0, 1, 3)
        curve = np.stack([t * width, (a + (b - a) * t + (c - 0.5) * 1.2 * t * (1 - t)) * height], -1)
        curves.append(curve if rng.random() < 0.6 else curve[:, ::-1] * (width / height, height / width))
    thick = rng.uniform(1, 3.5)
    return _drawn(size, strokes=[(curve, thick) for curve in curves])


def _branches(rng: Rng, size: Size) -> Covered:
    """A bare tree: each branch has two or three thinner ones."""
    x, y, radius = _place(rng, size)
    limbs: list[tuple[Path, float]] = []
    spread, thin = rng.uniform(0.3, 0.8), rng.uniform(0.55, 0.75)

    def grow(start: Path, angle: float, length: float, width: float, depth: int) -> None:
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        limbs.append((np.stack([start, end]), max(width, 0.8)))
        for _ in range(int(rng.integers(2, 4)) if depth else 0):
            grow(end, angle + rng.normal(0, spread), length * rng.uniform(0.55, 0.9), width * thin, depth - 1)

    grow(np.array([x, y]), -np.pi / 2 + rng.normal(0, 0.3), radius, radius * rng.uniform(0.06, 0.25), 4)
    return _drawn(size, strokes=limbs)


def _lattice(rng: Rng, size: Size) -> Covered:
    """A fence, a grid, spokes: thin bars at equal distances."""
    x, y, radius = _place(rng, size)
    angle, gap = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1), rng.uniform(6, 24)
    width, count = rng.uniform(1.2, max(1.3, gap / 3)), max(2, int(2 * radius / gap))
    lines = []
    for turn in (0.0, np.pi / 2)[: int(rng.integers(1, 3))]:
        for i in range(count):
            along = (i - count / 2) * gap
            cx, cy = x + along * np.cos(angle + turn + np.pi / 2), y + along * np.sin(angle + turn + np.pi / 2)
            lines.append(_ray(cx, cy, angle + turn, 2 * radius))
    return _drawn(size, strokes=[(line, width) for line in lines])


def _writing(rng: Rng, size: Size) -> Covered:
    """Short strokes in rows."""
    x, y, radius = _place(rng, size)
    high, thick = rng.uniform(3, 14), rng.uniform(0.8, 2.5)
    strokes = []
    for row in range(int(rng.integers(1, 5))):
        for column in range(int(2 * radius / high)):
            if rng.random() < 0.85:
                at = np.array([x - radius + column * high, y + (row - 2) * high * 1.6])
                strokes.append(at + rng.random((int(rng.integers(2, 5)), 2)) * high * 0.9)
    return _drawn(size, strokes=[(stroke, thick) for stroke in strokes])


def _ray(x: float, y: float, angle: float, length: float) -> Path:
    step = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([x, y])
    return np.stack([middle - step, middle + step])


def _fill(draw: Draw, points: Path) -> None:
    draw.polygon([tuple(p) for p in (points * F).tolist()], fill=255)


def _stroke(draw: Draw, points: Path, width: float) -> None:
    """A line with round ends."""
    fine, r = (points * F).tolist(), max(width * F, 1) / 2
    draw.line([tuple(p) for p in fine], fill=255, width=max(1, round(2 * r)), joint="curve")
    for x, y in (fine[0], fine[-1]) if r > 1.5 else ():
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _drawn(size: Size, fills: Sequence[Path] = (), strokes: Sequence[tuple[Path, float]] = ()) -> Covered:
    """The union of closed curves and of lines with their widths, in px."""
    mask = Image.new("L", (size[1] * F, size[0] * F))
    draw = ImageDraw.Draw(mask)
    for points in fills:
        _fill(draw, points)
    for points, width in strokes:
        _stroke(draw, points, width)
    share = np.asarray(mask.reduce(F), np.float32) / np.float32(255)
    return share, np.asarray(mask)[F // 2 :: F, F // 2 :: F] > 0


def _level(field: Array) -> Covered:
    """Where a field is above 0; the share of a pixel from the field's slope there."""
    slope = np.hypot(*np.gradient(field)) + 1e-6
    return np.clip(0.5 + field / slope, 0, 1).astype(np.float32), field > 0


_THINGS: dict[Callable[[Rng, Size], Covered], float] = {
    _blob: 3,
    _polygon: 3,
    _ragged: 1.5,
    _figure: 4,
    _furry: 1.5,
    _islands: 0.7,
    _pole: 2,
    _branches: 0.5,
    _lattice: 0.4,
    _wires: 0.4,
}
"""How often a thing is of a kind."""
