"""A small curve as inline SVG, with a band around each line if it has one; its ink suits light and dark pages.

Not here: what the numbers mean, and the page around it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

INK = ("#8a8f98", "#e8590c", "#1c7ed6", "#2f9e44", "#9c36b5", "#c2255c")
"""Line colours in order, readable on light and on dark paper; the first, grey, is meant for the baseline."""
SHORT, LINE = 9, 14
"""Characters that fit beside a line; px between two names."""


@dataclass(frozen=True)
class Series:
    """One line: its name, x and y, and optionally the lower and upper edge of a band. NaN and None leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


def curve(series: Sequence[Series], *, x_label: str, y_label: str, width: int = 400, height: int = 250) -> str:
    """Return the SVG element; lines in the order of ``series``, their names at their right ends, or below if long.

    Raises
    ------
    ValueError
        No finite point at all.

    Examples
    --------
    >>> svg = curve([Series("none", [1, 2, 3], [0.5, 0.6, 0.7])], x_label="px", y_label="IoU")
    >>> svg.startswith("<svg") and "none" in svg
    True
    """
    points = [(x, y) for s in series for x, y in _finite(s.x, s.y)]
    points += [(x, y) for s in series for edge in (s.low, s.high) if edge is not None for x, y in _finite(s.x, edge)]
    if not points:
        raise ValueError("nothing to draw: no series has a finite point")
    x_ticks, y_ticks = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
    drawn = [(s, ink) for s, ink in zip(series, itertools.cycle(INK)) if _finite(s.x, s.y)]
    below = max(len(s.name) for s, _ in drawn) > SHORT
    left, right, top, bottom = 46, width - (16 if below else 76), 14, height - 40
    total = height + LINE * len(drawn) * below

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - top), 1)

    title = escape(f"{y_label} over {x_label}")
    parts = [f'<svg class="curve" viewBox="0 0 {width} {total}" role="img" aria-label="{title}">']
    for y in y_ticks:
        level = at(x_ticks[0], y)[1]
        parts.append(f'<path class="grid" d="M{left} {level}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{level + 4}" text-anchor="end">{_number(y)}</text>')
    for x in x_ticks:
        across = at(x, y_ticks[0])[0]
        parts.append(f'<text class="tick" x="{across}" y="{bottom + 16}" text-anchor="middle">{_number(x)}</text>')
    middle, turned = (left + right) / 2, f"translate(12 {(top + bottom) / 2}) rotate(-90)"
    parts.append(f'<text class="axis" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="axis" transform="{turned}" text-anchor="middle">{escape(y_label)}</text>')
    for s, ink in drawn:
        if edge := [*_finite(s.x, s.low or []), *_finite(s.x, s.high or [])[::-1]]:
            parts.append(f'<path fill="{ink}" fill-opacity="0.18" d="{_path([at(*p) for p in edge])}Z"/>')
        line = [at(*p) for p in _finite(s.x, s.y)]
        parts.append(f'<path fill="none" stroke="{ink}" stroke-width="2.2" stroke-linejoin="round" d="{_path(line)}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.6" fill="{ink}"/>' for x, y in line]
    if below:
        names: list[tuple[float, float]] = [(left, height + LINE * (i + 0.3)) for i in range(len(drawn))]
    else:
        names = [(right + 8, level) for level in _apart([at(*_finite(s.x, s.y)[-1])[1] for s, _ in drawn], LINE)]
    for (s, ink), (x, level) in zip(drawn, names):
        parts.append(f'<text class="name" x="{x}" y="{level + 4:.1f}" fill="{ink}">{escape(s.name)}</text>')
    return "".join([*parts, "</svg>"])


def _finite(x: Sequence[float], y: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(x, y) if b is not None and math.isfinite(b)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _ticks(values: Sequence[float]) -> list[float]:
    """Three to six round numbers that enclose ``values``."""
    low, high = min(values), max(values)
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):  # they differ by rounding at most: ticks would be one and the same
        span = abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if span / (m * step) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:g}"


def _apart(levels: Sequence[float], distance: float) -> list[float]:
    """Move labels down until no two are nearer than ``distance``; the order of the given levels is kept."""
    out = list(levels)
    order = sorted(range(len(out)), key=out.__getitem__)
    for above, below in itertools.pairwise(order):
        out[below] = max(out[below], out[above] + distance)
    return out
