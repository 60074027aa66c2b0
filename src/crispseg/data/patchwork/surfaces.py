"""Surfaces: what the inside of a thing looks like, procedurally. Strong edges inside a surface are no border.

Each surface is (H, W, 3), float32, about [0, 1]. Spectra fall as those of photographs do (1/f), and colours are mostly
dull. Randomness comes from the generator that is passed in.

Not here: where a surface is seen (``shapes``), what the camera makes of it (``camera``).
"""

import colorsys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float32]
Rng = np.random.Generator
Size = tuple[int, int]


def cloud(rng: Rng, size: Size, slope: float, stretch: float = 1.0) -> Array:
    """Noise (H, W) of mean 0 and deviation 1 whose amplitude falls as f^−slope, the x axis ``stretch`` times longer."""
    height, width = size
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    f = np.hypot(fy, fx * stretch)
    f[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(size, np.float32)) * np.maximum(f, 1 / max(size)) ** -slope
    x = np.fft.irfft2(spectrum, s=size)
    return ((x - x.mean()) / (x.std() + 1e-9)).astype(np.float32)


def colour(rng: Rng) -> Array:
    """A colour: any hue and value, mostly dull."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.beta(1.1, 3), rng.uniform(0.04, 1) ** 0.75), np.float32)


def near(rng: Rng, base: Array, spread: float) -> Array:
    """A colour ``spread`` from ``base`` on average, in each channel; more in lightness than in hue."""
    step = rng.normal(0, spread) + rng.normal(0, spread / 2, 3)
    return np.clip(base + step, 0.01, 0.99).astype(np.float32)


def surface(rng: Rng, size: Size, base: Array) -> Array:
    """A surface of a random kind whose colours lie around ``base``."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    picture = kind(rng, size, base)
    if rng.random() < 0.25:
        other = KINDS[int(rng.integers(len(KINDS)))](rng, size, near(rng, base, 0.12))
        share = 1 / (1 + np.exp(-rng.uniform(1, 8) * (cloud(rng, size, rng.uniform(1.2, 2.5)) - rng.normal())))
        picture = picture + share[..., None].astype(np.float32) * (other - picture)
    light = 1 + rng.uniform(0, 0.35) * slant(rng, size) + rng.uniform(0, 0.12) * cloud(rng, size, 2.5)
    picture = picture * light[..., None]
    if rng.random() < 0.6:
        picture = picture + rng.uniform(0, 0.05) * cloud(rng, size, rng.uniform(0.3, 1.2))[..., None]
    return picture.astype(np.float32)


def slant(rng: Rng, size: Size) -> Array:
    """A gradient in a random direction, −1 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    return (np.cos(angle) * x[None] + np.sin(angle) * y[:, None]).astype(np.float32) / 1.4


def _flat(rng: Rng, size: Size, base: Array) -> Array:
    return np.broadcast_to(base, (*size, 3)).astype(np.float32)


def _grain(rng: Rng, size: Size, base: Array) -> Array:
    light = cloud(rng, size, rng.uniform(0.5, 1.8), rng.choice([1.0, 1.0, 0.2, 5.0]))
    tint = rng.normal(0, 0.25, 3)
    return base * (1 + rng.uniform(0.05, 0.4) * light[..., None] * (1 + tint)).clip(0.05, 3).astype(np.float32)


def _patches(rng: Rng, size: Size, base: Array) -> Array:
    """Two or three colours in patches with soft or hard edges: camouflage, rock, clothes, clouds."""
    picture = _flat(rng, size, base)
    for _ in range(int(rng.integers(1, 3))):
        other = near(rng, base, rng.uniform(0.04, 0.3))
        field = cloud(rng, size, rng.uniform(1, 2.4), rng.choice([1.0, 1.0, 0.3, 3.0])) - rng.uniform(-0.5, 1)
        share = np.clip(0.5 + field * rng.choice([0.6, 2, 8]), 0, 1)[..., None]
        picture = picture + share * (other - picture)
    return picture


def _stripes(rng: Rng, size: Size, base: Array) -> Array:
    period, angle = np.exp(rng.uniform(np.log(3), np.log(40))), rng.uniform(0, np.pi)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    phase = (np.cos(angle) * x + np.sin(angle) * y) / period + rng.uniform(0, 0.5) * cloud(rng, size, 2.2)
    wave = np.sin(2 * np.pi * phase)
    wave = np.clip(wave * rng.choice([1.0, 3.0, 10.0]) + rng.uniform(-0.6, 0.6), -1, 1)[..., None]
    other = near(rng, base, rng.uniform(0.04, 0.3))
    return (base + (wave / 2 + 0.5) * (other - base)).astype(np.float32)


def _courses(rng: Rng, size: Size, base: Array) -> Array:
    """Checks, bricks, tiles, windows in rows: a lattice whose cells differ and whose joints may be dark or light."""
    high, wide = np.exp(rng.uniform(np.log(4), np.log(36), 2))
    angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    v, u = (np.cos(angle) * y - np.sin(angle) * x) / high, (np.cos(angle) * x + np.sin(angle) * y) / wide
    u = u + rng.choice([0.0, 0.5]) * (np.floor(v) % 2)
    cell = np.sin(np.floor(u) * 12.9898 + np.floor(v) * 78.233) * 43758.5453 % 1
    gap = rng.uniform(0.05, 0.3)
    joint = ((u % 1) < gap) | ((v % 1) < gap)
    picture = base * (1 + rng.uniform(0, 0.4) * (cell - 0.5))[..., None]
    return np.where(joint[..., None], near(rng, base, rng.uniform(0.02, 0.3)), picture).astype(np.float32)


def _leaves(rng: Rng, size: Size, base: Array) -> Array:
    """Dead leaves: discs over each other, their sizes by a power law, which gives edges as photographs have them."""
    height, width = size
    smallest = rng.uniform(1.2, 5)
    count = int(min(1500, height * width / smallest**2 / 3))
    spread = rng.uniform(0.03, 0.2)
    image = Image.new("RGB", (width, height), tuple((np.clip(base, 0, 1) * 255).astype(int).tolist()))
    draw = ImageDraw.Draw(image)
    radius = np.minimum(smallest * (1 - rng.random(count)) ** -0.6, 0.25 * min(size))
    at, squeeze = rng.random((count, 2)) * (width, height), rng.uniform(0.4, 1.6, count)
    shades = np.clip(base + rng.normal(0, spread, (count, 1)) + rng.normal(0, spread / 3, (count, 3)), 0, 1) * 255
    order = np.argsort(-radius) if rng.random() < 0.5 else np.arange(count)
    for i in order.tolist():
        (x, y), r, s = at[i], radius[i], squeeze[i]
        draw.ellipse((x - r, y - r * s, x + r, y + r * s), fill=tuple(shades[i].astype(int).tolist()))
    return np.asarray(image, np.float32) / np.float32(255)


def _cells(rng: Rng, size: Size, base: Array) -> Array:
    """Voronoi cells: pebbles, scales, crowds, facets."""
    height, width = size
    count = int(np.exp(rng.uniform(np.log(20), np.log(700))))
    points = rng.random((count, 2)) * size
    shades = np.clip(base + rng.normal(0, rng.uniform(0.02, 0.2), (count, 1)) + rng.normal(0, 0.03, (count, 3)), 0, 1)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grid = np.stack([y.ravel(), x.ravel()], -1)
    distance, which = cKDTree(points).query(grid, k=2)
    picture = shades[which[:, 0]].reshape(height, width, 3)
    if rng.random() < 0.5:
        picture = picture * np.clip((distance[:, 1] - distance[:, 0]) / rng.uniform(1, 4), 0.3, 1).reshape(*size, 1)
    return picture.astype(np.float32)


KINDS: tuple[Callable[[Rng, Size, Array], Array], ...] = (
    _flat,
    _grain,
    _grain,
    _patches,
    _patches,
    _stripes,
    _courses,
    _leaves,
    _cells,
)
