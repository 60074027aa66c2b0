"""How the values of a file that is read by windows become colours; what TIFF and Zarr share.

8-bit values are divided by 255. For all other types ``limits`` says which value is black and which is white; between
them it is linear, and beyond them cut. Not here: reading (``rasters``, ``zarrs``).
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crispseg.errors import DataError

Values = npt.NDArray[Any]
Limits = tuple[float, float]


def check_bands(path: Path, bands: Sequence[int], count: int) -> list[int]:
    """Return the bands that were asked for, from 1. DataError if they are not one or three, or not there."""
    wrong = [band for band in bands if not 1 <= band <= count]
    if len(bands) not in (1, 3) or wrong:
        what = f"band {wrong[0]}" if wrong else f"{len(bands)} bands"
        raise DataError(f"{path}: expected one band or three, of 1…{count}, found {what}")
    return list(bands)


def range_of(path: Path, types: Collection[str], limits: Limits | None, look: Callable[[], Values]) -> Limits:
    """Return (black, white). DataError if they have to be said; ``look()``: some values, for a hint."""
    if limits is not None:
        return limits
    if set(types) == {"uint8"}:
        return 0.0, 255.0
    seen, hint = look(), ""
    seen = seen[np.isfinite(seen)]
    if seen.size:
        low, high = np.percentile(seen, (2, 98))
        hint = f"; 96 % of its values lie in {low:g}…{high:g}"
    raise DataError(
        f"{path}: values of {', '.join(sorted(types))} need --range LOW HIGH, the values of black and white{hint}"
    )


def colours(values: Values, limits: Limits, silent: Tensor | None) -> Tensor:
    """Return RGB in [0, 1], float32 (3, h, w), of values (1 or 3, h, w); black where they are ``silent``."""
    low, high = limits
    scaled = (values.astype(np.float32) - low) / np.float32(high - low)
    x = torch.from_numpy(np.nan_to_num(scaled, copy=False)).clamp_(0, 1).expand(3, -1, -1)
    return x if silent is None else x.masked_fill(silent, 0)
