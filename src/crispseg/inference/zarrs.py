"""Zarr in and out by windows, with class names, palette and the georeference of its attributes, through zarr.

A folder ``NAME.zarr`` is an array, or a group that holds one: OME-Zarr (the finest of its scales) or a single array.
Axes are those that its dimension names say, of which the last two are rows and columns; without names it is (rows,
columns), (bands, rows, columns), or (rows, columns, 3 or 4). What becomes of values and bands is as with TIFF
(``rasters``, ``values``). A pixel is void where a band that is used is NaN, infinite, or the value of the attribute
``_FillValue``, ``missing_value`` or ``nodata``. A chunk that is not there has the array's fill value: so Zarr says it.

Not here: blending, resuming.
"""

import importlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crispseg.data import ClassSet
from crispseg.errors import CrispsegError, DataError, in_a_line, require
from crispseg.files import writing_folder
from crispseg.inference.inputs import is_zarr
from crispseg.inference.values import Limits, check_bands, colours, range_of

__all__ = ["Zarr", "is_zarr", "need_zarr", "save_zarr"]
CHUNK = 512
"""Side of a chunk of what is written, px."""
NODATA = ("_FillValue", "missing_value", "nodata")
OWN = ("_ARRAY_DIMENSIONS", "multiscales", "omero", "ome", *NODATA)
"""Attributes of a picture that say nothing about its mask."""
ROWS, COLUMNS = (
    ("y", "row", "rows", "lat", "latitude", "height"),
    ("x", "column", "columns", "lon", "longitude", "width"),
)
_LOOK = 512


class Zarr:
    """A Zarr array as a source of :func:`crispseg.inference.predict_large`; see above for what it may be.

    Parameters
    ----------
    path
        The folder.
    bands, limits
        As in :class:`crispseg.inference.Raster`.

    Raises
    ------
    UsageError
        zarr is not installed.
    DataError
        The folder is missing, damaged or no Zarr; it has other axes, or needs ``bands`` or ``limits``.
    """

    def __init__(self, path: Path, *, bands: Sequence[int] | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self._array, self._attributes = _opened(path)
        self._last = self._axes() == "last"
        shape = self._array.shape if self._array.ndim == 3 else (1, *self._array.shape)
        count, self.height, self.width = (shape[2], *shape[:2]) if self._last else shape
        if bands is not None:
            self._bands = check_bands(path, bands, count)
        elif count in (1, 3) or (count == 4 and self._last):
            self._bands = [1] if count == 1 else [1, 2, 3]
        else:
            raise DataError(
                f"{path}: expected 1 or 3 bands, found {count}; --bands R G B says which are red, green and blue"
            )
        told = {key: self._attributes[key] for key in NODATA if key in self._attributes}
        self._nodata = next((float(value) for value in told.values() if isinstance(value, int | float)), None)
        self._gaps = self._nodata is not None or self._array.dtype.kind == "f"
        self._limits = range_of(path, {str(self._array.dtype)}, limits, self._look)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return RGB in [0, 1], float32 (3, h, w)."""
        values = self._read(rows, columns)
        return colours(values, self._limits, self._silent(values))

    def void(self, rows: slice, columns: slice) -> Tensor | None:
        """Return where a band is NaN, infinite or nodata, bool (h, w); None for an array that has no such."""
        return self._silent(self._read(rows, columns)) if self._gaps else None

    def facts(self) -> dict[str, Any]:
        """Return the attributes that a mask of this picture shares with it, the georeference among them."""
        return {key: value for key, value in self._attributes.items() if key not in OWN}

    def _silent(self, values: npt.NDArray[Any]) -> Tensor | None:
        if not self._gaps:
            return None
        silent = ~np.isfinite(values).all(0) if values.dtype.kind == "f" else np.zeros(values.shape[1:], bool)
        if self._nodata is not None:
            silent |= (values == self._nodata).any(0)
        return torch.from_numpy(silent)

    def _read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        with _named(self.path, f"rows {rows.start}–{rows.stop - 1} cannot be read: "):
            if self._array.ndim == 2:
                return np.asarray(self._array[rows, columns])[None]
            at = [band - 1 for band in self._bands]
            if self._last:
                return np.ascontiguousarray(np.asarray(self._array[rows, columns])[..., at].transpose(2, 0, 1))
            return np.stack([np.asarray(self._array[band, rows, columns]) for band in at])

    def _look(self) -> npt.NDArray[Any]:
        middle = [slice(max(0, (n - _LOOK) // 2), (n + _LOOK) // 2) for n in (self.height, self.width)]
        values = self._read(*middle)
        silent = self._silent(values)
        return values.ravel() if silent is None else values[:, ~silent.numpy()].ravel()

    def _axes(self) -> str:
        """Whether bands come ``first`` or ``last``. DataError for an array that is no picture."""
        shape, names = self._array.shape, _names(self._array, self._attributes)
        if names and len(names) in (2, 3):
            low = [str(name).lower() for name in names]
            if low[-2] in ROWS and low[-1] in COLUMNS:
                return "first"
            if len(low) == 3 and low[0] in ROWS and low[1] in COLUMNS:
                return "last"
        elif not names and len(shape) in (2, 3):
            return "last" if len(shape) == 3 and shape[2] in (3, 4) and shape[0] > 4 else "first"
        said = f", {', '.join(map(str, names))}" if names else ""
        raise DataError(f"{self.path}: expected (rows, columns) or (bands, rows, columns), found {shape}{said}")


def save_zarr(
    path: Path, rows: Iterable[npt.NDArray[np.uint8]], height: int, width: int, classes: ClassSet, facts: dict[str, Any]
) -> None:
    """Write class indices as a Zarr array in chunks; void is its fill value, names and palette are attributes.

    ``facts``: :meth:`Zarr.facts` of the picture. The folder is the old one or the whole new one.
    """
    zarr: Any = importlib.import_module("zarr")
    void = classes.ignore_index
    told = {**facts, "CLASSES": list(classes.names), "PALETTE": [list(rgb) for rgb in classes.palette]}
    with writing_folder(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            store=str(temporary),
            shape=(height, width),
            chunks=(min(CHUNK, height), min(CHUNK, width)),
            dtype="uint8",
            fill_value=void,
            dimension_names=("y", "x"),
            attributes={**told, "_FillValue": void},
        )
        held: list[npt.NDArray[np.uint8]] = []
        top = 0
        for some in rows:  # whole rows of chunks, as a chunk is written anew for each part of it
            held.append(some)
            if (count := sum(map(len, held))) >= CHUNK:
                block = np.concatenate(held)
                whole = count // CHUNK * CHUNK
                array[top : top + whole] = block[:whole]
                held, top = [block[whole:]], top + whole
        if held and (rest := np.concatenate(held)).size:
            array[top : top + len(rest)] = rest


def need_zarr() -> None:
    """Raise UsageError where zarr is not installed."""
    require("zarr", "zarr", purpose="Zarr")


def _opened(path: Path) -> tuple[Any, dict[str, Any]]:
    need_zarr()
    zarr: Any = importlib.import_module("zarr")
    if not path.exists():
        raise DataError(f"{path}: no such folder")
    with _named(path):
        found = zarr.open(str(path), mode="r")
        if isinstance(found, zarr.Array):
            return found, dict(found.attrs)
        about = dict(found.attrs)
        scales = about.get("ome", about).get("multiscales")
        if scales:
            array = found[scales[0]["datasets"][0]["path"]]
            axes = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", [])]
            return array, {**about, **dict(array.attrs), "_ARRAY_DIMENSIONS": axes}
        arrays = [array for _, array in found.arrays() if array.ndim > 1]
        if len(arrays) == 1:
            return arrays[0], {**about, **dict(arrays[0].attrs)}
        raise DataError(f"{path}: expected an array, or a group of one, found a group of {len(arrays)}")


def _names(array: Any, attributes: dict[str, Any]) -> Sequence[str]:
    names = attributes.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None) or ()
    return names if all(names) else ()


@contextmanager
def _named(path: Path, what: str = "") -> Iterator[None]:
    """What zarr raises, of many kinds, as a DataError that names the folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's about its own formats
            yield
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{path}: damaged or no Zarr: {what}{in_a_line(error)}") from error
