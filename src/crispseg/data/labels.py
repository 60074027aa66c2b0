"""Reading label files: one channel of class indices, and an error that says how to get there from anything else.

A palette PNG is read when its colours are those of the classes (or shades of grey): then its indices are the labels, as
in Pascal VOC and in the masks that crispseg writes. With other colours its indices mean nothing, and it is refused.
"""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from crispseg.data.classes import ClassSet
from crispseg.data.images import MAX_PIXELS, bits_per_channel, open_picture
from crispseg.errors import DataError
from crispseg.files import write_bytes

Indices = npt.NDArray[np.integer]
_SCALED = {2: 85, 4: 17}
"""What Pillow multiplies grey values of few bits by, so that the largest is white: here they are indices."""
_CONVERT = "convert it once with crispseg.data.convert_colours(source, target, classes)"


def read_label(
    path: str | os.PathLike[str],
    classes: ClassSet,
    mapping: Sequence[int] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a label map: uint8 (H, W), each value a class 0…K−1 or ``classes.ignore_index``.

    ``mapping`` gives the class of each value in the file, −1 for values that must not occur (data sets whose files hold
    other ids). Raises ``DataError``, naming the file, if it is no PNG, not one channel of indices, damaged, or holds a
    value out of range; the message says which values, in how many pixels.
    """
    indices = read_indices(path, classes, max_pixels=max_pixels)
    table = np.asarray(identity(classes) if mapping is None else mapping, dtype=np.int16)
    inside = indices if indices.dtype == np.uint8 else np.minimum(indices, len(table))
    table = np.append(table, np.full(max(1, 257 - len(table)), -1, np.int16))
    labels = table[inside]
    if labels.size and labels.min() < 0:
        raise DataError(f"{path}: {_out_of_range(indices[labels < 0], classes, mapping)}")
    return torch.from_numpy(labels.astype(np.uint8))


def identity(classes: ClassSet) -> list[int]:
    """The mapping of files that hold the classes' own indices: i to i, the void value to itself, all else to −1."""
    k, void = len(classes), classes.ignore_index
    return [*range(k), *[-1] * (void - k), void]


def read_indices(path: str | os.PathLike[str], classes: ClassSet, *, max_pixels: int = MAX_PIXELS) -> Indices:
    """Read the one channel of a label file, (H, W), whatever its values. Raises ``DataError`` as :func:`read_label`."""
    with open_picture(path, max_pixels=max_pixels) as picture:
        if picture.format != "PNG":
            lossy = "; its compression invents values at every border" if picture.format in ("JPEG", "WEBP") else ""
            raise DataError(f"{path}: expected a PNG of class indices, found {picture.format}{lossy}")
        if picture.mode == "P":
            _check_palette(path, picture, classes)
        elif picture.mode not in ("L", "1", "I;16", "I"):
            raise DataError(f"{path}: expected one channel of class indices, found {_in_words(picture, classes)}")
        return one_channel(picture)


def one_channel(picture: Image.Image) -> npt.NDArray[Any]:
    """Return the one channel (H, W) of an opened picture with the values that the file holds, whatever they mean."""
    scaled = _SCALED.get(bits_per_channel(picture), 1) if picture.mode == "L" else 1  # before it is decoded and closed
    values = np.array(picture)
    if picture.mode == "1":
        return values.astype(np.uint8)
    return values // np.uint8(scaled) if scaled > 1 else values


def convert_colours(source: str | os.PathLike[str], target: str | os.PathLike[str], classes: ClassSet) -> None:
    """Write the label file ``target`` for the colour mask ``source``: each palette colour becomes its class index.

    White and black become void where no class has that colour. Raises ``DataError`` if any other colour occurs
    (``source`` is named, with the colour and its number of pixels) and if two classes share a colour.
    """
    with open_picture(source) as picture:
        rgb = np.array(picture.convert("RGB")).astype(np.int32)
    codes = (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2]
    index_of = {0x000000: classes.ignore_index, 0xFFFFFF: classes.ignore_index}
    if len(set(classes.palette)) < len(classes):
        raise DataError(f"{source}: two classes share a colour, so colours cannot tell them apart")
    index_of |= {(r << 16) + (g << 8) + b: index for index, (r, g, b) in enumerate(classes.palette)}
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    unknown = [(int(count), int(code)) for code, count in zip(found, counts, strict=True) if code not in index_of]
    if unknown:
        count, code = max(unknown)
        raise DataError(
            f"{source}: {len(unknown)} colours belong to no class, the first rgb({code >> 16}, {code >> 8 & 255}, "
            f"{code & 255}) in {count} pixels; many rare ones mean anti-aliased or lossy masks"
        )
    indices = np.array([index_of[int(code)] for code in found], np.uint8)[inverse.reshape(codes.shape)]
    write_label(target, torch.from_numpy(indices), classes)


def write_label(path: str | os.PathLike[str], label: Tensor, classes: ClassSet) -> None:
    """Write a label map (H, W) as a palette PNG, atomically: indices that look like the classes' colours.

    Void is shown white. Raises ``ValueError`` if the map is not two-dimensional or holds values outside 0…255.
    """
    write_bytes(path, encode_label(label, classes))


def encode_label(label: Tensor, classes: ClassSet) -> bytes:
    """Return the PNG file that :func:`write_label` writes."""
    if label.ndim != 2:
        raise ValueError(f"expected a label map (H, W), found shape {tuple(label.shape)}")
    if label.numel() and (int(label.min()) < 0 or int(label.max()) > 255):
        raise ValueError(f"expected labels in 0…255, found {int(label.min())}…{int(label.max())}")
    picture = Image.fromarray(label.to("cpu", torch.uint8).numpy())
    picture.putpalette([channel for colour in full_palette(classes) for channel in colour])
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def full_palette(classes: ClassSet) -> list[tuple[int, int, int]]:
    """Return 256 colours: the classes', white for void, black for the rest."""
    colours = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
    colours[classes.ignore_index] = (255, 255, 255)
    return colours


def _check_palette(path: str | os.PathLike[str], picture: Image.Image, classes: ClassSet) -> None:
    flat = picture.getpalette("RGB") or []
    for index in np.unique(np.array(picture)).tolist():
        colour = tuple(flat[3 * index : 3 * index + 3])
        grey = colour == (index, index, index) or not colour
        if index < len(classes) and not grey and colour != classes.palette[index]:
            raise DataError(
                f"{path}: expected one channel of class indices, found a palette PNG with other colours than the "
                f"classes': index {index} is rgb{colour}, but class {index} ({classes.names[index]!r}) is "
                f"rgb{classes.palette[index]}. If the colours are right, {_CONVERT}; if the indices are, drop the "
                f"palette: Image.fromarray(numpy.array(Image.open({str(Path(path).name)!r}))).save(…)"
            )


def _in_words(picture: Image.Image, classes: ClassSet) -> str:
    pixels = np.array(picture)
    if picture.mode in ("RGB", "RGBA") and (pixels[..., :1] == pixels[..., 1:3]).all():
        return f"a grey {picture.mode} picture; keep one channel: Image.open(…).getchannel(0).save(…)"
    if picture.mode in ("RGB", "RGBA"):
        known = set(classes.palette)
        colours = {tuple(colour) for colour in np.unique(pixels[..., :3].reshape(-1, 3), axis=0).tolist()}
        share = f"{len(colours & known)} of its {len(colours)} colours are classes'"
        return f"an {picture.mode} colour mask ({share}); {_CONVERT}"
    return f"a picture of mode {picture.mode}; save the indices as 8-bit grey PNG"


def _out_of_range(wrong: Indices, classes: ClassSet, mapping: Sequence[int] | None) -> str:
    values, counts = np.unique(wrong, return_counts=True)
    shown = ", ".join(
        f"{value} ({count} {'pixel' if count == 1 else 'pixels'})"
        for value, count in list(zip(values.tolist(), counts.tolist(), strict=True))[:5]
    )
    more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
    if mapping is None:
        expected = f"label values 0…{len(classes) - 1} or {classes.ignore_index} (void)"
    else:
        expected = "only label values that the data set defines"
    return f"expected {expected}, found {shown}{more}"
