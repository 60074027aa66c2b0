"""Pictures as sources of :func:`crispseg.inference.predict_large`: what Pillow reads, and which reader a file gets.

A PNG, JPEG or WebP is decoded whole, up to the cap of :data:`crispseg.data.images.MAX_PIXELS`: its bytes are 3 a pixel.
Not here: GeoTIFF and Zarr, which are read by windows and have no cap (``rasters``, ``zarrs``).
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from crispseg.data import read_image
from crispseg.errors import DataError
from crispseg.inference.large import Source
from crispseg.inference.rasters import Raster
from crispseg.inference.zarrs import Zarr, is_zarr

TIFF = frozenset((".tif", ".tiff"))


class Picture:
    """A decoded picture uint8 (3, H, W)."""

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self.height, self.width = image.shape[-2:]

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return RGB in [0, 1], float32 (3, h, w)."""
        return self._image[:, rows, columns].float() / 255

    def void(self, rows: slice, columns: slice) -> None:
        """Every pixel of a picture says something."""


def is_raster(path: Path) -> bool:
    """Whether a file is read by windows, judged by its suffix."""
    return path.suffix.lower() in TIFF


def open_source(path: Path, bands: Sequence[int] | None = None, limits: tuple[float, float] | None = None) -> Source:
    """Open a picture for windows. ``bands``, ``limits``: of :class:`crispseg.inference.Raster`, for a TIFF or Zarr.

    Raises ``DataError``, naming the file, as :func:`crispseg.data.read_image` and ``Raster`` do, and if bands or limits
    are given for a picture that has none.
    """
    if is_raster(path):
        return Raster(path, bands=bands, limits=limits)
    if is_zarr(path):
        return Zarr(path, bands=bands, limits=limits)
    if bands is not None or limits is not None:
        raise DataError(f"{path}: --bands and --range are about TIFF and Zarr; this is read as an 8-bit RGB picture")
    return Picture(read_image(path))
