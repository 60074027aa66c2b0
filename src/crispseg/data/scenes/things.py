"""Things in a landscape: hills, a road, trees, houses, poles with wires, fences, and the shadows that they throw.

Each function paints one thing on the canvas. Positions and sizes are in pixels; ``foot`` is the y where a thing stands.

Not here: which things a scene has and where (``crispseg.data.scenes``).
"""

import numpy as np

from crispseg.data.scenes.canvas import Array, Canvas, Points, box, disc, line, polygon
from crispseg.data.scenes.textures import Rng, colour, courses

SKY, FIELD, TREE, HOUSE, ROAD, POLE = range(6)
BARK = np.array([0.75, 0.5, 0.45])
WHITE = np.array([0.92, 0.92, 0.92])
DOOR = np.array([0.46, 0.28, 0.18])


def hill(canvas: Canvas, rng: Rng, top: float, roughness: float, texture: Array) -> None:
    """A hill over the whole width with its ridge near y = ``top``."""
    x = np.linspace(-3, canvas.width + 3, 120)
    ridge = np.full_like(x, top)
    for wave in range(1, 6):
        ridge += roughness / wave * np.sin(x * wave * rng.uniform(3, 8) / canvas.width + rng.uniform(0, 7))
    canvas.paint(FIELD, texture, polygon([*_points(x, ridge), (x[-1], canvas.height), (x[0], canvas.height)]))


def road(canvas: Canvas, rng: Rng, top: float, texture: Array) -> Array:
    """A winding road from the bottom edge to y = ``top``; returns its middle, x for each row of the canvas."""
    y = np.linspace(top, canvas.height + 2, 60)
    near = (y - top) / (canvas.height - top)
    start, end = rng.uniform(0.15, 0.85, 2) * canvas.width
    bend = rng.uniform(-0.35, 0.35) * canvas.width * np.sin(np.pi * near * rng.uniform(0.9, 2.0)) * (1 - near)
    middle = end + (start - end) * near**1.4 + bend
    half = 0.8 + rng.uniform(0.11, 0.24) * canvas.width * near**1.3
    canvas.paint(ROAD, texture, polygon(_points(middle - half, y) + _points(middle + half, y)[::-1]))
    if rng.random() < 0.6:
        for i in range(18, 58, 5):
            canvas.paint(ROAD, WHITE, line(_points(middle[i : i + 3], y[i : i + 3]), 0.05 * float(half[i])))
    return np.interp(np.arange(canvas.height), y, middle)


def shadow(canvas: Canvas, rng: Rng, x: float, foot: float, size: float, slant: float) -> None:
    """The shadow of a thing ``size`` pixels wide, thrown along the ground to the side of ``slant``'s sign."""
    tip, low = x + slant * size * 1.6, foot + size * 0.28
    outline = [(x - size / 2, foot), (x + size / 2, foot), (tip + size / 2, low), (tip - size * 0.3, low)]
    canvas.shade(float(rng.uniform(0.45, 0.7)), polygon(outline))


def broadleaf(canvas: Canvas, rng: Rng, x: float, foot: float, size: float, base: Array, foliage: Array) -> None:
    """A tree ``size`` pixels high: a round, bumpy crown on a short trunk."""
    half = max(size * 0.045, 0.8)
    canvas.paint(TREE, base * BARK, box(x - half, foot - size * 0.5, x + half, foot))
    middle, reach = foot - size * 0.62, size * rng.uniform(0.2, 0.28)
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(7, 13)), endpoint=False) + rng.uniform(0, 1)
    bumps = size * rng.uniform(0.13, 0.2, len(angles))
    crown = [
        disc(x + reach * float(np.cos(angle)), middle + reach * float(np.sin(angle)), float(bump))
        for angle, bump in zip(angles, bumps)
    ]
    below = np.clip((np.arange(canvas.height)[:, None, None] - middle) / size + 0.35, 0, 1)
    canvas.paint(TREE, base * foliage * (1.12 - 0.4 * below), disc(x, middle, reach), *crown)


def fir(canvas: Canvas, rng: Rng, x: float, foot: float, size: float, base: Array, foliage: Array) -> None:
    """A fir ``size`` pixels high: a stack of skirts, all corners."""
    tiers, half = int(rng.integers(3, 6)), size * rng.uniform(0.18, 0.27)
    right: Points = [(x, foot - size)]
    for share in (np.arange(1, tiers + 1) / tiers).tolist():
        y = foot - size * (1.06 - share)
        right += [(x + half * share, y), (x + half * share * 0.55, y - size * 0.04)]
    right[-1] = (x + half * 0.12, right[-2][1])
    right += [(x + half * 0.12, foot)]
    mirrored = [(2 * x - px, py) for px, py in right[::-1]]
    dark_side = 1.1 - 0.3 * (np.arange(canvas.width)[:, None] > x)
    canvas.paint(TREE, base * foliage * dark_side, polygon(right + mirrored))


def house(canvas: Canvas, rng: Rng, x: float, foot: float, size: float, wall: Array, roof: Array) -> None:
    """A house ``size`` pixels wide: gabled front, side wall in another light, roof, chimney, windows."""
    shape = (canvas.height, canvas.width)
    half, depth = size * rng.uniform(0.25, 0.31), size * rng.uniform(0.38, 0.5) * float(rng.choice([-1, 1]))
    left, right, top = x - half, x + half, foot - size * rng.uniform(0.4, 0.75)
    peak, lift, eave = top - size * rng.uniform(0.22, 0.4), size * 0.05, size * 0.05
    near, out = (right, eave) if depth > 0 else (left, -eave)
    brick = max(size / rng.uniform(14, 22), 2.5)
    stones = courses(rng, shape, wall, brick, brick * rng.uniform(1.6, 2.6), rng.uniform(0.08, 0.28))
    tiles = courses(rng, shape, roof, max(brick * 0.8, 2.2), brick * 1.3, rng.uniform(0.1, 0.3))
    if rng.random() < 0.7:
        stack, thick = x + depth * rng.uniform(0.3, 0.8), size * 0.045
        canvas.paint(HOUSE, stones * 0.8, box(stack - thick, peak - size * 0.16, stack + thick, top))
    side = [(near, foot), (near + depth, foot - lift), (near + depth, top - lift), (near, top)]
    canvas.paint(HOUSE, stones * rng.uniform(0.62, 0.85), polygon(side))
    canvas.paint(HOUSE, stones, polygon([(left, foot), (left, top), (x, peak), (right, top), (right, foot)]))
    edge = top + eave * 0.6
    slope = [(near + out, edge), (near + out + depth, edge - lift), (x + depth, peak - lift), (x, peak)]
    canvas.paint(HOUSE, tiles, polygon(slope))
    verge = [(left - eave, top + eave), (x, peak - eave * 0.4), (right + eave, top + eave)]
    canvas.paint(HOUSE, roof * 0.7, line(verge, max(size * 0.04, 1.2)))
    _windows(canvas, rng, left, right, top, foot, size * 0.02)


def _windows(canvas: Canvas, rng: Rng, left: float, right: float, top: float, foot: float, edge: float) -> None:
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    glass = colour(rng, 0.58, 0.35, rng.choice([0.25, 0.9]))
    wide, high = (right - left) / (2 * columns + 1), (foot - top) / (2 * rows + 1)
    for column in range(columns):
        for row in range(rows):
            door = row == rows - 1 and column == columns // 2
            x, y = left + wide * (2 * column + 1), top + high * (2 * row + 1)
            bottom = foot if door else y + high
            canvas.paint(HOUSE, WHITE, box(x - edge, y - edge, x + wide + edge, bottom))
            canvas.paint(HOUSE, DOOR if door else glass, box(x, y, x + wide, bottom - edge))


def wires(canvas: Canvas, rng: Rng, feet: Points, sizes: list[float], paint: Array) -> None:
    """A row of poles standing at ``feet``, each as high as its size, with cross-arms and sagging wires between them."""
    arms: list[Points] = []
    for (x, y), high in zip(feet, sizes):
        half, arm, level = max(high * 0.0175, 0.75), high * 0.12, y - high * 0.9
        arms.append([(x - arm, level), (x + arm, level)])
        canvas.paint(POLE, paint, box(x - half, y - high, x + half, y), line(arms[-1], half * 1.6))
    t = np.linspace(0, 1, 24)
    for here, there, high in zip(arms, arms[1:], sizes):
        for (x0, y0), (x1, y1) in zip(here, there):
            sag = high * 0.64 * t * (1 - t)
            canvas.paint(POLE, paint * 0.9, line(_points(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + sag), 1.34))


def lamp(canvas: Canvas, x: float, foot: float, size: float, paint: Array) -> None:
    """A street lamp with a bent neck."""
    bow, t = size * 0.1, np.linspace(0, np.pi * 0.85, 12)
    neck = [(x, foot), *_points(x + bow * (1 - np.cos(t)), foot - size + bow * (1 - np.sin(t)))]
    canvas.paint(POLE, paint, line(neck, max(size * 0.035, 1.4)), disc(*neck[-1], size * 0.06, 0.6))


def fence(canvas: Canvas, rng: Rng, start: float, end: float, foot: float, size: float, paint: Array) -> None:
    """A fence of thin posts and two rails."""
    x = np.arange(start, end, size * 0.9)
    y = foot + rng.uniform(-0.08, 0.08) * (x - start)
    canvas.paint(POLE, paint, *(box(px - 0.8, py - size, px + 0.8, py) for px, py in _points(x, y)))
    rails = [line(_points(x[[0, -1]], y[[0, -1]] - size * level), 1.34) for level in (0.35, 0.8)]
    canvas.paint(POLE, paint * 0.92, *rails)


def _points(x: Array, y: Array) -> Points:
    return list(zip(x.tolist(), y.tolist()))
