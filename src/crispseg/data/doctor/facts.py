"""What is to be known of one image and of one label file, read once. No judgement here (``findings``)."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from crispseg.data.classes import ClassSet
from crispseg.data.images import exif_orientation, open_picture, read_image
from crispseg.data.labels import identity, read_indices
from crispseg.errors import DataError

Bits = npt.NDArray[np.bool_]
Thumbnail = npt.NDArray[np.uint8]
Counts = dict[int, int]
_TINY = (16, 16)


@dataclass(frozen=True)
class ImageFacts:
    """An image: size (height, width), EXIF orientation, digest of its pixels, and a tiny grey copy."""

    path: Path
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    thumbnail: Thumbnail = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False)


@dataclass(frozen=True)
class LabelFacts:
    """A label file: pixels and border pixels of every value in it, and how its borders look.

    kind: "indices"; or what stands in their place, "colours", "palette", "grey", "format" or "damaged".
    steps: pairs of neighbouring pixels in a row or column with different labels; ramps: pixels whose value lies
    strictly between those of both neighbours, as anti-aliasing and interpolation make them. Void counts for neither.
    """

    path: Path
    error: str | None = None
    kind: str = "indices"
    size: tuple[int, int] = (0, 0)
    pixels: Counts = field(default_factory=dict)
    border: Counts = field(default_factory=dict)
    steps: int = 0
    ramps: int = 0


def image_facts(path: Path) -> ImageFacts:
    """Read and decode an image; what cannot be read has an ``error``."""
    try:
        pixels = np.ascontiguousarray(read_image(path).permute(1, 2, 0).numpy())
        with open_picture(path) as picture:
            orientation = exif_orientation(picture)
    except DataError as error:
        return ImageFacts(path, str(error))
    digest = hashlib.blake2b(pixels.tobytes() + str(pixels.shape).encode(), digest_size=16).digest()
    return ImageFacts(path, None, pixels.shape[:2], orientation, digest, _thumbnail(Image.fromarray(pixels)))


def label_facts(path: Path, classes: ClassSet | None, mapping: tuple[int, ...] | None) -> LabelFacts:
    """Read a label file; without ``classes`` any value is as good as another and 255 is void."""
    known = classes or ClassSet(("?",), ((0, 0, 0),))
    try:
        indices = read_indices(path, known)
    except DataError as error:
        return LabelFacts(path, str(error), _kind(path))
    void = indices == known.ignore_index if mapping is None else np.isin(indices, _values_of(known, mapping))
    border, steps, ramps = _borders(indices.astype(np.int16 if indices.dtype == np.uint8 else np.int32), void)
    return LabelFacts(
        path, None, "indices", indices.shape[:2], _count(indices), _count(indices[border & ~void]), steps, ramps
    )


def class_of(classes: ClassSet, mapping: tuple[int, ...] | None) -> dict[int, int]:
    """Return value in the file → class or void, for the values that are allowed."""
    table = identity(classes) if mapping is None else mapping
    return {value: index for value, index in enumerate(table) if index >= 0}


def _values_of(classes: ClassSet, mapping: tuple[int, ...]) -> list[int]:
    return [value for value, index in enumerate(mapping) if index == classes.ignore_index]


def _kind(path: Path) -> str:
    try:
        with open_picture(path) as picture:
            picture.load()
            if picture.format != "PNG":
                return "format"
            if picture.mode == "P":
                return "palette"
            if picture.mode not in ("RGB", "RGBA"):
                return "format"
            pixels = np.array(picture)
            return "grey" if (pixels[..., :1] == pixels[..., 1:3]).all() else "colours"
    except DataError:
        return "damaged"


def _count(values: npt.NDArray[Any]) -> Counts:
    counts = np.bincount(values.ravel())
    return {int(value): int(counts[value]) for value in counts.nonzero()[0]}


def _borders(x: npt.NDArray[Any], void: Bits) -> tuple[Bits, int, int]:
    """Pixels with a neighbour (of four) of another label, the steps between neighbours, and the ramps."""
    border = np.zeros(x.shape, bool)
    steps = ramps = 0
    for y, v, b in ((x, void, border), (x.T, void.T, border.T)):
        step = (y[1:] != y[:-1]) & ~v[1:] & ~v[:-1]
        b[1:] |= step
        b[:-1] |= step
        up, down = step & (y[1:] > y[:-1]), step & (y[1:] < y[:-1])
        steps += int(step.sum())
        ramps += int((up[1:] & up[:-1]).sum() + (down[1:] & down[:-1]).sum())
    return border, steps, ramps


def _thumbnail(picture: Image.Image) -> Thumbnail:
    return np.array(picture.convert("L").resize(_TINY, Image.Resampling.BOX)).ravel()
