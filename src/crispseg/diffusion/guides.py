"""Guides from files: feature maps in .npy or .safetensors, brought to the grid of the image.

Not here: masks, which are pictures and are read as such (``crispseg.data``).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crispseg.errors import DataError

SUFFIXES = (".npy", ".safetensors")


def read_features(path: str | Path, size: tuple[int, int]) -> Tensor:
    """Read one feature map (D, h, w) or (1, D, h, w) and bring it to ``size`` bilinearly: (1, D, H, W), float32.

    A .safetensors file has to hold one tensor. Nothing is unpickled. Raises ``DataError``, naming the file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    v = _read_npy(path) if path.suffix.lower() == ".npy" else _read_safetensors(path)
    v = v[0] if v.ndim == 4 and v.shape[0] == 1 else v
    if v.ndim != 3 or v.numel() == 0:
        raise DataError(f"{path}: expected features (channels, height, width), found shape {tuple(v.shape)}")
    v = v.float()
    if not bool(torch.isfinite(v).all()):
        raise DataError(f"{path}: expected finite features, found NaN or infinity")
    return F.interpolate(v[None], size=size, mode="bilinear", align_corners=False)


def _read_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected real numbers, found {array.dtype}")
    return torch.from_numpy(array.astype(np.float32))


def _read_safetensors(path: Path) -> Tensor:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file ({error})") from error
    if len(tensors) != 1:
        raise DataError(f"{path}: expected one tensor, found {len(tensors)}: {', '.join(sorted(tensors)[:8])}")
    return next(iter(tensors.values()))
