"""Label maps of any size that are read by windows: a TIFF's, a PNG's, or finished rows of a prediction.

A PNG is decoded whole, a byte a pixel, up to the cap of :data:`crispseg.data.images.MAX_PIXELS`.
Not here: pictures (``pictures``), what is measured (``crispseg.evaluation``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from crispseg.data import ClassSet, read_label
from crispseg.data.labels import identity
from crispseg.errors import DataError
from crispseg.inference.pictures import is_raster
from crispseg.inference.rasters import opened, reading


class Labels(Protocol):
    """A label map that is read by windows."""

    height: int
    width: int

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return class indices and void, uint8 (h, w)."""


class Map:
    """A label map uint8 (H, W) in memory."""

    def __init__(self, label: Tensor) -> None:
        self._label = label
        self.height, self.width = label.shape

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return class indices and void, uint8 (h, w)."""
        return self._label[rows, columns]


class RasterLabels:
    """A GeoTIFF of one band of class indices; nodata and what is masked is void.

    ``mapping``: as in :func:`crispseg.data.read_label`. Raises ``DataError``, naming the file, for another kind of
    file, and ``read`` for a value that is no class.
    """

    def __init__(self, path: Path, classes: ClassSet, mapping: Sequence[int] | None = None) -> None:
        self.path, self._file, self._void = path, opened(path), classes.ignore_index
        if self._file.count != 1 or np.dtype(self._file.dtypes[0]).kind not in "ui":
            found = f"{self._file.count} of {', '.join(sorted(set(self._file.dtypes)))}"
            raise DataError(f"{path}: expected one band of class indices, found {found}")
        self.height, self.width = self._file.height, self._file.width
        self._table = np.full(257, -1, np.int16)
        known = identity(classes) if mapping is None else mapping
        self._table[: len(known)] = known

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return class indices and void, uint8 (h, w)."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        with reading(self.path, f"rows {rows.start}–{rows.stop - 1} cannot be read: "):
            values: Any = self._file.read(1, window=window)
            masked = self._file.read_masks(1, window=window) == 0
        labels = self._table[values.astype(np.int64).clip(-1, 256)]  # the last of the table, −1, also for −1
        labels[masked] = self._void
        if (wrong := labels < 0).any():
            shown = ", ".join(map(str, np.unique(values[wrong])[:5].tolist()))
            raise DataError(f"{self.path}: expected class indices or {self._void} (void), found {shown}")
        return torch.from_numpy(labels.astype(np.uint8))


def open_labels(path: Path, classes: ClassSet, mapping: Sequence[int] | None = None) -> Labels:
    """Open a label map for windows: a TIFF, or a PNG as :func:`crispseg.data.read_label` reads it."""
    if is_raster(path):
        return RasterLabels(path, classes, mapping)
    return Map(read_label(path, classes, mapping))
