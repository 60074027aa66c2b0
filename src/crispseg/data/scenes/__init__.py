"""Generated scenes: small landscapes with exact truth, painted from a seed. The data of ``crispseg demo`` and of tests.

What makes them a test of borders and not of colours: textures with strong edges inside a class (furrows, bricks,
windows, leaves, cobbles, cast shadows) beside weak contrasts between classes (a tree in the meadow's green, a wall in
the road's grey, a pale pole before the sky), and borders that are curved (crowns, hills, a winding road), rich in
corners (gables, firs) and thin (poles, wires, fences).

Not here: how shapes become pixels (``canvas``), how they are filled (``textures``), what they are (``things``).
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from crispseg.data.scenes import things
from crispseg.data.scenes.canvas import Array, Canvas
from crispseg.data.scenes.textures import Rng, colour, field, leaves, noise, paving, sky
from crispseg.files import write_bytes, write_json

NAMES = ("sky", "field", "tree", "house", "road", "pole")
PALETTE = ((142, 202, 230), (196, 203, 104), (54, 124, 79), (205, 92, 68), (120, 124, 138), (250, 189, 47))
Bytes = npt.NDArray[np.uint8]


def scene(seed: int | tuple[int, ...], height: int = 192, width: int = 256) -> tuple[Bytes, Bytes]:
    """Paint one scene: image (H, W, 3) and labels (H, W), 0 … 5 as in ``NAMES``; the same for the same seed.

    >>> image, label = scene(7)
    >>> image.shape, label.shape, sorted(set(label.ravel().tolist()))
    ((192, 256, 3), (192, 256), [0, 1, 2, 3, 4, 5])
    """
    rng = np.random.default_rng(seed)
    size, unit = (height, width), height / 192
    horizon = rng.uniform(0.3, 0.52) * height
    haze = colour(rng, rng.choice([0.57, 0.6, 0.09]), rng.uniform(0.05, 0.3), 0.9)
    canvas = Canvas(height, width, things.SKY, sky(rng, size, colour(rng, 0.59, rng.uniform(0.25, 0.65), 0.82), haze))
    green = colour(rng, rng.choice([0.22, 0.27, 0.31, 0.14]), rng.uniform(0.35, 0.6), rng.uniform(0.45, 0.68), 1.5)
    _hills(canvas, rng, horizon, green, haze)
    grey = colour(rng, rng.choice([0.08, 0.6]), rng.uniform(0.03, 0.2), rng.uniform(0.38, 0.62))
    road = None
    if rng.random() < 0.85:
        road = things.road(canvas, rng, horizon + rng.uniform(6, 20) * unit, paving(rng, size, grey, horizon))
    _population(canvas, rng, horizon, green, grey, road)
    return _developed(canvas, rng), canvas.label


def write_scenes(
    root: str | os.PathLike[str], counts: Mapping[str, int], *, seed: int = 0, height: int = 192, width: int = 256
) -> None:
    """Write ``counts[split]`` scenes a split in the folder format: images, labels and ``classes.json``.

    Splits never share a scene: each is painted from (seed, split, number).
    """
    root = Path(root)
    about = {"name": "scenes", "ignore_index": 255, "classes": list(NAMES), "palette": PALETTE}
    write_json(root / "classes.json", about)
    for order, (split, count) in enumerate(counts.items()):
        for number in range(count):
            image, label = scene((seed, order, number), height, width)
            name = f"{split}_{number:04d}.png"
            write_bytes(root / "images" / split / name, _png(image))
            write_bytes(root / "labels" / split / name, _png(label))


def _hills(canvas: Canvas, rng: Rng, horizon: float, green: Array, haze: Array) -> None:
    size, count = (canvas.height, canvas.width), int(rng.integers(1, 4))
    for layer in range(count):
        distance = (count - 1 - layer) / count
        base = colour(rng, rng.choice([0.13, 0.22, 0.28]), 0.4, 0.6) if rng.random() < 0.35 else green
        texture = field(rng, size, base, horizon - 12)
        texture = texture + (haze - texture) * 0.55 * distance
        things.hill(
            canvas, rng, horizon - distance * 0.2 * canvas.height, rng.uniform(2, 7) * canvas.height / 192, texture
        )


def _population(canvas: Canvas, rng: Rng, horizon: float, green: Array, grey: Array, road: Array | None) -> None:
    """Trees, houses and poles, the far ones first; what stands nearer is bigger."""
    height, width = canvas.height, canvas.width
    kinds = ["tree"] * int(rng.integers(3, 9)) + ["fir"] * int(rng.integers(0, 6)) + ["house"] * int(rng.integers(1, 4))
    kinds += ["lamp"] * int(rng.integers(0, 3)) + ["fence"] * int(rng.integers(0, 3)) + ["wires"]
    feet = horizon + (height * 0.98 - horizon) * rng.beta(1.1, 1.9, len(kinds))
    foliage = [leaves(rng, (height, width)) for _ in range(2)]
    slant = float(rng.choice([-1, 1]))
    for index in np.argsort(feet).tolist():
        kind, foot, leaf = kinds[index], float(feet[index]), foliage[index % 2]
        x, unit = (
            float(rng.uniform(0, width)),
            height * (0.13 + 0.42 * (float(feet[index]) - horizon) / (height - horizon)),
        )
        if kind in ("house", "tree", "fir"):
            if road is not None:
                x = _beside(rng, x, float(road[min(int(foot), height - 1)]), unit, width)
            things.shadow(canvas, rng, x, foot, unit * 0.6, slant)
        if kind == "tree":
            base = green if rng.random() < 0.5 else colour(rng, rng.choice([0.2, 0.28, 0.33, 0.09]), 0.5, 0.5)
            things.broadleaf(canvas, rng, x, foot, unit * rng.uniform(0.8, 1.3), base, leaf)
        elif kind == "fir":
            base = green * 0.75 if rng.random() < 0.4 else colour(rng, 0.36, 0.4, 0.36)
            things.fir(canvas, rng, x, foot, unit * rng.uniform(0.9, 1.5), base, leaf)
        elif kind == "house":
            plaster = colour(rng, rng.choice([0.02, 0.07, 0.12, 0.58]), 0.3, 0.72, 1.5)
            wall = grey * 1.15 if rng.random() < 0.35 else plaster
            roof = colour(rng, rng.choice([0.02, 0.05, 0.6, 0.3]), rng.choice([0.15, 0.5]), rng.choice([0.35, 0.55]))
            things.house(canvas, rng, x, foot, unit * rng.uniform(0.9, 1.5), wall, roof)
        else:
            _metal(canvas, rng, kind, x, foot, unit, horizon)


def _metal(canvas: Canvas, rng: Rng, kind: str, x: float, foot: float, unit: float, horizon: float) -> None:
    """A lamp, a fence, or three to five poles with wires that recede towards the horizon."""
    wood = colour(rng, 0.07, 0.4, 0.35)
    paint = colour(rng, 0.6, 0.08, rng.choice([0.15, 0.3, 0.7, 0.85])) if rng.random() < 0.6 else wood
    if kind == "lamp":
        things.lamp(canvas, x, foot, unit * rng.uniform(0.9, 1.2), paint)
    elif kind == "fence":
        things.fence(canvas, rng, x, x + unit * rng.uniform(1, 2.5), foot, max(unit * 0.2, 6), paint)
    else:
        count = int(rng.integers(3, 6))
        share = np.linspace(0, 1, count) ** 0.7
        far = x + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9) * canvas.width
        xs, ys = x + (far - x) * share, foot + (horizon + 4 - foot) * share * 0.8
        size = unit * rng.uniform(1.3, 1.7) * (1 - 0.75 * share)
        things.wires(canvas, rng, list(zip(xs.tolist(), ys.tolist())), size.tolist(), paint)


def _beside(rng: Rng, x: float, middle: float, unit: float, width: int) -> float:
    """Move x off the road's middle, to the side it is on."""
    side = 1 if x > middle else -1
    return float(np.clip(middle + side * max(abs(x - middle), unit * rng.uniform(0.5, 0.9)), -0.1 * width, 1.1 * width))


def _developed(canvas: Canvas, rng: Rng) -> Bytes:
    """The picture as a camera would give it: tint, exposure, cloud shade, grain, 8 bits."""
    size = (canvas.height, canvas.width)
    tint = (1 + rng.normal(0, 0.03, 3)) * rng.uniform(0.85, 1.1)
    shade = 1 + 0.05 * noise(rng, size, 60)[..., None]
    grain = rng.normal(0, rng.uniform(0.005, 0.02), (*size, 3)).astype(np.float32)
    return (np.clip(canvas.picture * tint * shade + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


def _png(array: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)  # scenes are written often and read a few times
    return buffer.getvalue()
