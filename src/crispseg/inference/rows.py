"""Labels row by row on the disk: what is finished stays, whatever ends the process, and becomes a PNG at the end.

A file of rows is a line of JSON, which says what the rows are of, and then the labels, a byte a pixel. Each write is
whole and on the disk before the next begins, and half a row at the end, of a writer that was killed, is cut off.

Not here: GeoTIFF (``rasters``), who predicts (``large``).
"""

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crispseg.data import ClassSet, full_palette
from crispseg.errors import UsageError
from crispseg.files import try_lock, writing

Rows = npt.NDArray[np.uint8]
TOGETHER = 512
"""Rows that are read at a time."""
SUFFIX = ".rows"


class RowFile:
    """A sink of :func:`crispseg.inference.predict_large` that outlives its process.

    Parameters
    ----------
    path
        The file; its folder is made. If rows of the same ``of`` are there, :attr:`done` says how many.
    height, width
        Of the whole, in px.
    of
        What decides the labels: picture, network, windows. Anything that JSON holds.
    replace
        Drop the rows of something else.

    Raises
    ------
    UsageError
        Another process writes to it, or it holds rows of something else.
    """

    def __init__(self, path: Path, height: int, width: int, of: Mapping[str, Any], *, replace: bool = False) -> None:
        self.path, self.height, self.width = path, height, width
        self._header = (json.dumps({"height": height, "width": width, **of}, sort_keys=True) + "\n").encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b", buffering=0)
        if try_lock(self._file.fileno()) is False:
            self._file.close()
            raise UsageError(f"{path} is being written by another process; wait for it, or choose another --out")
        line = self._file.readline(2**20)
        if line != self._header:
            rows = os.fstat(self._file.fileno()).st_size - len(line)
            if rows and line.endswith(b"\n") and not replace:
                self._file.close()
                raise UsageError(
                    f"{path} holds finished rows of another prediction (other picture, run or windows); --overwrite "
                    "drops them"
                )
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._header)
        held = os.fstat(self._file.fileno()).st_size - len(self._header)
        self.done = min(held // width, height)
        self._file.truncate(len(self._header) + self.done * width)
        self._file.seek(0, os.SEEK_END)

    def write(self, labels: Tensor) -> None:
        """Take the next rows, uint8 (n, width); they are on the disk when it returns."""
        left = memoryview(labels.numpy().tobytes())
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        self.done += len(labels)

    def rows(self) -> Iterator[Rows]:
        """Yield the finished rows (n, width), from top to bottom."""
        self._file.seek(len(self._header))
        for start in range(0, self.done, TOGETHER):
            count = min(TOGETHER, self.done - start)
            yield np.frombuffer(self._file.read(count * self.width), np.uint8).reshape(count, self.width)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return a window of the finished rows, uint8 (h, w)."""
        held = np.memmap(self.path, np.uint8, "r", len(self._header), (self.done, self.width))
        return torch.from_numpy(held[rows, columns].copy())

    def close(self) -> None:
        """Leave the file to the next process."""
        self._file.close()


def save_png(path: Path, rows: Iterable[Rows], height: int, width: int, classes: ClassSet) -> None:
    """Write a palette PNG of class indices as :func:`crispseg.data.encode_label` does, from rows, atomically."""
    with writing(path) as temporary, temporary.open("r+b") as file:
        write_png(file, rows, height, width, full_palette(classes))


def write_png(
    file: BinaryIO, rows: Iterable[Rows], height: int, width: int, palette: Sequence[tuple[int, int, int]]
) -> None:
    """Write a PNG of 8-bit palette indices; of its pixels only ``rows`` at a time are held."""

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
    chunk(b"PLTE", bytes(channel for colour in palette for channel in colour))
    packer = zlib.compressobj()
    for some in rows:
        unfiltered = np.concatenate([np.zeros((len(some), 1), np.uint8), some], axis=1)
        if data := packer.compress(unfiltered.tobytes()):
            chunk(b"IDAT", data)
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")
