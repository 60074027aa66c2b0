"""Textures: what a class looks like inside. All have edges as strong as the borders between classes, on purpose.

Each returns (H, W, 3) in about [0, 1]. Colours are RGB triples. Randomness comes from the generator that is passed in,
so that a seed gives the same scene on every machine.

Not here: where a texture is put.
"""

import colorsys

import numpy as np
from PIL import Image

from crispseg.data.scenes.canvas import Array

Rng = np.random.Generator
Size = tuple[int, int]
AUTUMN = np.array([0.06, 0.0, -0.08], np.float32)


def colour(rng: Rng, hue: float, saturation: float, value: float, spread: float = 1.0) -> Array:
    """A colour near the given hue, saturation and value (each in 0–1)."""
    h = hue + spread * rng.normal(0, 0.02)
    s, v = (float(np.clip(x + spread * rng.normal(0, 0.06), 0.02, 0.98)) for x in (saturation, value))
    return np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32)


def noise(rng: Rng, size: Size, cell: float, octaves: int = 1, stretch: float = 1) -> Array:
    """Smooth noise (H, W), mean 0, deviation 1: grains of ``cell`` pixels, ``stretch`` times as wide."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        high = max(cell / 2**octave, 1.0)
        wide = high * stretch
        grid = rng.standard_normal((int(height / high) + 3, int(width / wide) + 3), np.float32)
        whole = (int(grid.shape[1] * wide), int(grid.shape[0] * high))
        total += np.asarray(Image.fromarray(grid).resize(whole, Image.Resampling.BICUBIC))[:height, :width] / 2**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def sky(rng: Rng, size: Size, zenith: Array, horizon: Array) -> Array:
    """A gradient with clouds, some of them with hard edges."""
    down = np.linspace(0, 1.6, size[0], dtype=np.float32).clip(0, 1)[:, None, None]
    base = zenith + (horizon - zenith) * down
    stretched = noise(rng, size, rng.uniform(12, 24), 4, stretch=3)
    hardness, cover = rng.uniform(1.5, 6), rng.uniform(-0.2, 1.2)
    cloud = np.clip((stretched - cover) * hardness * 0.5, 0, 1)[..., None] * rng.uniform(0.5, 0.95)
    white = np.float32(rng.uniform(0.8, 1.0))
    return base + cloud * (white - base)


def field(rng: Rng, size: Size, base: Array, horizon: float) -> Array:
    """Meadow or ploughed land: furrows that run to a vanishing point, or tufts, on ``base``."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    depth = np.maximum(y - horizon + 6, 3)
    warp = noise(rng, size, 40) * 0.25
    if rng.random() < 0.65:
        lines = (x - rng.uniform(-0.5, 1.5) * width) / depth * rng.uniform(5, 10) + warp
        rows = np.tanh(2.5 * np.sin(lines * 2.2))
        strength = rng.uniform(0.1, 0.24)
    else:
        rows = np.sign(noise(rng, size, rng.uniform(4, 9), 2) - 0.4)
        strength = rng.uniform(0.07, 0.15)
    light = 1 + strength * rows + 0.06 * noise(rng, size, 3) + 0.06 * noise(rng, size, 50)
    picture = base * light[..., None]
    if rng.random() < 0.35:
        flowers = (rng.random(size) < 0.02)[..., None]
        picture = np.where(flowers, colour(rng, rng.random(), 0.6, 0.9), picture)
    return picture.astype(np.float32)


def leaves(rng: Rng, size: Size) -> Array:
    """Foliage, as a factor (H, W, 3) of a tree's colour: clumps of light and dark leaves."""
    clump = np.tanh(noise(rng, size, rng.uniform(6, 11)) * 1.2)
    leaf = np.sign(noise(rng, size, rng.uniform(2.2, 3.6)))
    light = 1 + 0.17 * clump + rng.uniform(0.12, 0.24) * leaf
    return light[..., None] * (1 + AUTUMN * leaf[..., None])


def courses(rng: Rng, size: Size, base: Array, high: float, wide: float, contrast: float) -> Array:
    """Bricks, planks or tiles: courses of ``high`` pixels, joints every ``wide`` pixels, each stone its own shade."""
    y, x = np.ogrid[: size[0], : size[1]]
    row = (y // high).astype(int)
    along = x / wide + 0.5 * (row % 2)
    column = along.astype(int)
    shades = rng.standard_normal((int(row.max()) + 1, int(column.max()) + 1), np.float32)
    joint = (y % high < 1) | ((along - column) * wide < 1)
    light = 1 + 0.4 * contrast * shades[row, column] - np.float32(contrast) * joint
    return (base * (light + 0.03 * noise(rng, size, 2))[..., None]).astype(np.float32)


def paving(rng: Rng, size: Size, base: Array, horizon: float) -> Array:
    """A road's surface: cobbles that shrink towards the horizon, or patched asphalt."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.5:
        depth = np.maximum(y - horizon + 5, 3)
        row = np.floor(260 / depth)
        phase = (x - width / 2) / depth * 9 + 0.5 * (row % 2)
        stone = np.sin(row * 12.9898 + np.floor(phase) * 78.233) * 43758.5453 % 1
        joint = ((260 / depth) % 1 < 0.22) | (phase % 1 < 0.16)
        light = 0.86 + 0.32 * stone - 0.3 * joint
    else:
        patch = np.sign(noise(rng, size, 30) - 0.7)
        light = 1 + 0.07 * patch + 0.09 * noise(rng, size, 1.6)
    return (base * light[..., None]).astype(np.float32)
