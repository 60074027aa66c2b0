"""Class scores (K, H, W) of any network, as .npy or .npz files: reading one.

Not here: what they are measured against (``crispseg.evaluation``), refining them (``crispseg.refinement``).
"""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.errors import DataError, in_a_line

SCORES = frozenset({".npy", ".npz"})
DAMAGED = (
    *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What reading raises at a file with flipped bits: of zip (an encrypted file, a method unknown), of zlib, of numpy."""


def read_scores(path: str | os.PathLike[str], num_classes: int | None = None) -> Tensor:
    """Read scores (K, H, W) from a .npy file, or a .npz file of one array; float32. Nothing is unpickled.

    ``num_classes``: the K that it must have; None: any. Raises ``DataError``, naming the file, if it holds anything
    else, or values that are not finite.
    """
    path = Path(path)
    try:
        found = np.load(path, allow_pickle=False)
        arrays = [found] if isinstance(found, np.ndarray) else [found[name] for name in found.files]
    except DAMAGED as error:
        raise DataError(f"{path}: expected scores in a .npy or .npz file, found none ({in_a_line(error)})") from error
    if len(arrays) != 1:
        raise DataError(f"{path}: expected one array, found {len(arrays)}")
    array: np.ndarray[Any, Any] = arrays[0]
    if array.dtype.kind != "f":
        raise DataError(f"{path}: expected scores as floating point numbers, found {array.dtype}")
    if array.ndim != 3 or array.shape[0] != (num_classes or array.shape[0]) or array.size == 0:
        classes = num_classes or "classes"
        raise DataError(f"{path}: expected scores ({classes}, height, width), found shape {array.shape}")
    scores = torch.from_numpy(array.astype(np.float32))
    if not bool(torch.isfinite(scores).all()):
        raise DataError(f"{path}: expected finite scores, found NaN or infinity")
    return scores
