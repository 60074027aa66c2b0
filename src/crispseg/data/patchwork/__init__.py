"""Patchwork: generated pictures of nothing in particular with exact labels, to train what must not know any class.

Things of all shapes over each other, each with its own surface: textures, parts of other colours, shadows and patches
of light, which are no borders, beside borders with hardly any contrast, out of focus, thin, branching or furry. Then a
camera's faults. ``coarse`` makes of the exact labels what networks and annotators would.

Not here: landscapes with classes that mean something (``crispseg.data.scenes``).
"""

import numpy as np
import numpy.typing as npt

from crispseg.data.patchwork.camera import blurred, developed
from crispseg.data.patchwork.coarse import coarse
from crispseg.data.patchwork.shapes import Covered, Mask, detail, land, part, thing
from crispseg.data.patchwork.surfaces import Array, Rng, Size, colour, near, surface

__all__ = ["CLASSES", "coarse", "patchwork"]
CLASSES = 6
"""The most classes of a picture."""


def patchwork(
    seed: int | tuple[int, ...], size: Size = (192, 192)
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Paint one picture: image uint8 (H, W, 3) and labels uint8 (H, W), 0 … 5; the same for the same seed.

    >>> image, label = patchwork((0, 3), (64, 96))
    >>> image.shape, label.shape, bool(label.max() < CLASSES)
    ((64, 96, 3), (64, 96), True)
    """
    rng = np.random.default_rng(seed)
    while True:
        picture, label = _painted(rng, size)
        if len(np.unique(label)) > 1:
            return developed(rng, picture), label


def _painted(rng: Rng, size: Size) -> tuple[Array, npt.NDArray[np.uint8]]:
    classes = int(rng.integers(2, CLASSES + 1))
    styles = [colour(rng) for _ in range(classes)]
    picture, label = surface(rng, size, styles[0]), np.zeros(size, np.uint8)
    _decorate(rng, picture, np.ones(size, bool), styles[0])
    lands, things = int(rng.choice([0, 1, 1, 2, 3])), int(rng.choice([1, 2, 3, 4, 6, 9]))
    for shape in [land] * lands + [thing] * things:
        share, inside = shape(rng, size)
        _add(rng, picture, label, (share, inside), int(rng.integers(classes)), styles)
        if rng.random() < 0.25:
            _shadow(rng, picture)
    return picture, label


def _add(rng: Rng, picture: Array, label: npt.NDArray[np.uint8], shape: Covered, of: int, styles: list[Array]) -> None:
    """Put a thing of a class onto the picture, its surface by the class's style, by what is behind it, or any."""
    share, inside = shape
    if not inside.any():
        return
    behind = picture[inside].mean(0)
    base = (near(rng, styles[of], 0.05), near(rng, behind, 0.1), colour(rng))[int(rng.choice(3, p=[0.4, 0.25, 0.35]))]
    paint = surface(rng, inside.shape, base)
    _decorate(rng, paint, inside, base)
    if rng.random() < 0.25:  # out of focus
        sigma = rng.uniform(0.5, 2.5)
        share, paint = blurred(share, sigma), blurred(paint, sigma)
    picture += share[..., None] * (paint - picture)
    label[inside] = of


def _decorate(rng: Rng, paint: Array, inside: Mask, base: Array) -> None:
    """Parts of other colours and thin details, in place: clothes, windows, fur marks, writing. None is a class."""
    ys, xs = np.nonzero(inside)
    low, high = (ys.min(), xs.min()), (ys.max() + 1, xs.max() + 1)
    at = (slice(low[0], high[0]), slice(low[1], high[1]))
    size = (high[0] - low[0], high[1] - low[1])
    if min(size) < 8:
        return
    for _ in range(int(rng.choice([0, 1, 2, 3, 5]))):
        share, _ = (detail if rng.random() < 0.35 else part)(rng, size)
        other = colour(rng) if rng.random() < 0.5 else near(rng, base, 0.15)
        paint[at] += share[..., None] * (surface(rng, size, other) - paint[at])


def _shadow(rng: Rng, picture: Array) -> None:
    """A shadow, or a patch of light, with a sharp or a soft edge: no class."""
    share, _ = part(rng, picture.shape[:2])
    if rng.random() < 0.6:
        share = blurred(share, rng.uniform(0.5, 8))
    light = rng.uniform(0.35, 0.8) if rng.random() < 0.8 else rng.uniform(1.1, 1.5)
    picture *= 1 + share[..., None] * (light - 1)
