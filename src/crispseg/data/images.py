"""Reading pictures that come from anywhere: the header is checked before a pixel is decoded.

Formats outside the list are never opened, a picture above the pixel cap is never decoded, and whatever a decoder raises
becomes a ``DataError`` that names the file. Of a file with several frames the first is read. Not here: what label files
have to be (``labels``).
"""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from crispseg.errors import DataError, is_memory

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"))
MAX_PIXELS = 100_000_000
MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"))
_ORIENTATION = 0x0112  # the EXIF tag
_PNG_DEPTH = 24  # where a PNG says it: after signature, length and name of its first chunk, width and height
_TURNED = frozenset((5, 6, 7, 8))  # the orientations that exchange height and width


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as it is meant to be looked at: uint8 (3, H, W), RGB, turned as its EXIF orientation says.

    Grey, palette and CMYK pictures are converted to RGB; transparency is dropped. Raises ``DataError``, naming the
    file, if it is missing, none of :data:`FORMATS`, larger than ``max_pixels``, damaged, or has 16 or more bits in its
    only channel (how to scale those to 8 bits is for their owner to say).
    """
    with open_picture(path, max_pixels=max_pixels) as picture:
        return upright_rgb(picture, path)


def upright_rgb(picture: Image.Image, name: object) -> Tensor:
    """Return an opened picture as :func:`read_image` does; ``name``: what an error calls it."""
    _check_mode(picture, name)
    upright = ImageOps.exif_transpose(picture)
    rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) that :func:`read_image` will give, from the header alone. Raises as it does."""
    with open_picture(path, max_pixels=max_pixels) as picture:
        _check_mode(picture, path)
        width, height = picture.size
        if isinstance(picture, TiffImageFile):  # its size is the upright one already in some versions of Pillow
            width, height = picture.tag_v2[IMAGEWIDTH], picture.tag_v2[IMAGELENGTH]
        return (width, height) if exif_orientation(picture) in _TURNED else (height, width)


def _check_mode(picture: Image.Image, name: object) -> None:
    if picture.mode not in MODES:
        raise DataError(f"{name}: expected 8 bits a channel, found a picture of mode {picture.mode}; save it as RGB")


def bits_per_channel(picture: Image.Image) -> int:
    """Return the bits of a channel in the file; Pillow widens 1, 2 and 4 bits to 8, and cuts 16 of a colour to 8."""
    if isinstance(picture, TiffImageFile):
        return int(max(picture.tag_v2.get(258, (1,))))
    if isinstance(picture, PngImageFile) and picture.fp is not None:
        place = picture.fp.tell()
        picture.fp.seek(_PNG_DEPTH)
        (depth,) = picture.fp.read(1)
        picture.fp.seek(place)
        return int(depth)
    return 8


def exif_orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none."""
    return int(picture.getexif().get(_ORIENTATION, 1))


@contextmanager
def open_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture whose header is checked; decoding happens inside the ``with``, where every failure is named."""
    width = height = 0
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a pipe would be waited for
            raise DataError(f"{path}: expected a file, found a device, pipe or socket")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, and its own smaller pixel cap
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise DataError(_too_large(path, f"{width}×{height} pixels", max_pixels))
                yield picture
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, str(error), max_pixels)) from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: expected a file, found a folder") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected {_formats()}, found {_look_at(Path(path))}") from None
    except Exception as error:  # decoders raise all kinds of things at damaged files
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        if is_memory(error):
            raise DataError(f"{path}: {width}×{height} pixels need more memory than there is") from error
        raise DataError(f"{path}: damaged or cut short ({str(error) or type(error).__name__})") from error


def _formats() -> str:
    return ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"


def _too_large(path: object, found: str, max_pixels: int) -> str:
    return f"{path}: expected at most {max_pixels} pixels, found {found}; not decoded. Cut it into tiles"


def _look_at(path: Path) -> str:
    """What an unknown file looks like, in words: the usual accidents have a name."""
    with path.open("rb") as file:
        head = file.read(64)
    text = head.lstrip().lower()
    if not head:
        return "an empty file"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (fetch the file itself with `git lfs pull`)"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (a download that went wrong?)"
    if head.startswith(b"GIF8"):
        return "a GIF"
    if head[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    return f"something else (it starts with {head[:8].hex(' ')})"
