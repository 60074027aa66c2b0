"""GeoTIFF in and out by windows, with georeference, nodata, palette and class names, through rasterio.

**How values become colours.** Three bands are red, green and blue. A file of 3 bands gives them, as does one of 4 whose
last is alpha; one band is grey, or its palette's colours. Of any other, ``bands`` names three (or one). A pixel says
nothing where a band that is used is nodata, masked, NaN or infinite: the model sees black there, and its label is void.
``values`` says how numbers are scaled.

A file is opened as GeoTIFF (and COG) and as nothing else that GDAL knows, so nothing that it names is fetched.
Not here: blending, resuming.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crispseg.data import ClassSet, full_palette
from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.files import writing
from crispseg.inference.values import Limits, check_bands, colours, range_of

CACHE = 256
"""Megabytes of decoded blocks that GDAL keeps, so that a strip as wide as the picture is decoded once for all windows
that it crosses. GDAL's own choice is a twentieth of the machine's memory."""
BLOCK = 512
"""Side of a tile of what is written, in px."""
_LOOK = 512  # px on a side of the small copy by which an error says what values there are


class Raster:
    """A GeoTIFF as a source of :func:`crispseg.inference.predict_large`; see above for how values become colours.

    Parameters
    ----------
    path
        The file.
    bands
        Numbers, from 1, of red, green and blue, or of one band for grey. None: as the file says.
    limits
        (black, white), the values that become 0 and 1. None: (0, 255), for 8 bits.

    Raises
    ------
    UsageError
        rasterio is not installed.
    DataError
        The file is missing, damaged or no TIFF; it has other bands, or needs ``bands`` or ``limits``.
    """

    def __init__(self, path: Path, *, bands: Sequence[int] | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self._file = opened(path)
        self.height, self.width = self._file.height, self._file.width
        self._palette: npt.NDArray[np.uint8] | None = None
        self._bands = self._choose(bands)
        self._limits = self._range(limits)
        dtypes = {self._file.dtypes[band - 1] for band in self._bands}
        self._gaps = any(np.dtype(dtype).kind == "f" for dtype in dtypes) or any(
            "all_valid" not in [flag.name for flag in self._file.mask_flag_enums[band - 1]] for band in self._bands
        )

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return RGB in [0, 1], float32 (3, h, w)."""
        values, silent = self._read(rows, columns)
        if self._palette is not None:
            values = self._palette[values[0]].transpose(2, 0, 1)
        return colours(values, self._limits, silent)

    def void(self, rows: slice, columns: slice) -> Tensor | None:
        """Return where a band is nodata, masked, NaN or infinite, bool (h, w); None for a file that has no such."""
        return self._read(rows, columns)[1] if self._gaps else None

    def facts(self) -> dict[str, Any]:
        """Return the georeference: what a mask of this picture shares with it."""
        points, system = self._file.gcps
        where = (
            {"gcps": points, "crs": system} if points else {"transform": self._file.transform, "crs": self._file.crs}
        )
        return {key: value for key, value in where.items() if value is not None}

    def _read(self, rows: slice, columns: slice) -> tuple[npt.NDArray[Any], Tensor | None]:
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with reading(self.path, f"rows {rows.start}–{rows.stop - 1} cannot be read: "):
            values = self._file.read(self._bands, window=window)
            if not self._gaps:
                return values, None
            masks = self._file.read_masks(self._bands, window=window)
        silent = (masks == 0).any(0)
        if values.dtype.kind == "f":
            silent |= ~np.isfinite(values).all(0)
        return values, torch.from_numpy(silent)

    def _choose(self, bands: Sequence[int] | None) -> list[int]:
        count = self._file.count
        if bands is not None:
            return check_bands(self.path, bands, count)
        kinds = [colour.name for colour in self._file.colorinterp]
        if count == 1:
            if kinds == ["palette"]:
                table = self._file.colormap(1)
                self._palette = np.array([table.get(i, (0, 0, 0, 0))[:3] for i in range(256)], np.uint8)
            return [1]
        if count == 3 or (count == 4 and kinds[3] == "alpha"):
            return [1, 2, 3]
        raise DataError(
            f"{self.path}: expected 1 or 3 bands, found {count} ({', '.join(kinds[:8])}); --bands R G B says which "
            "are red, green and blue"
        )

    def _range(self, limits: Limits | None) -> Limits:
        if limits is not None and self._palette is not None:
            raise DataError(f"{self.path}: --range does not apply, as its colours are those of a palette")
        return range_of(self.path, {self._file.dtypes[band - 1] for band in self._bands}, limits, self._look)

    def _look(self) -> npt.NDArray[Any]:
        shape = (len(self._bands), min(_LOOK, self.height), min(_LOOK, self.width))
        with reading(self.path):
            small: Any = self._file.read(self._bands, out_shape=shape, masked=True)
        return np.asarray(small.compressed())


def save_geotiff(
    path: Path, rows: Iterable[npt.NDArray[np.uint8]], height: int, width: int, classes: ClassSet, facts: dict[str, Any]
) -> None:
    """Write class indices as a GeoTIFF, atomically: tiled, compressed, with palette, void as nodata, names as a tag.

    ``facts``: :meth:`Raster.facts` of the picture.
    """
    import rasterio

    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "bigtiff": "if_safer"}
    void = classes.ignore_index
    palette = {i: (*rgb, 0 if i == void else 255) for i, rgb in enumerate(full_palette(classes))}
    with (
        writing(path) as temporary,
        reading(path),
        rasterio.open(temporary, "w", **profile, **layout, nodata=void, **facts) as file,
    ):
        file.write_colormap(1, palette)
        file.update_tags(CLASSES=json.dumps(classes.names))
        top = 0
        for some in rows:
            file.write(some, 1, window=((top, top + len(some)), (0, width)))
            top += len(some)


def need_rasterio() -> None:
    """Raise UsageError where rasterio is not installed."""
    if importlib.util.find_spec("rasterio") is None:
        raise UsageError('TIFF is read by windows with rasterio, which is not installed: pip install "crispseg[large]"')


def opened(path: Path) -> Any:
    need_rasterio()
    import rasterio

    if not path.exists():
        raise DataError(f"{path}: no such file")
    with reading(path):
        return rasterio.open(path, driver="GTiff")


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """rasterio with our cache, and its errors as a DataError that names the file."""
    import rasterio

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # a picture need not have one
        try:
            yield
        except rasterio.errors.RasterioError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise DataError(f"{path}: damaged, cut short or no TIFF: {what}{in_a_line(cause)}") from error
