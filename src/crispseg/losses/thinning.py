"""Skeletons of masks, by Zhang and Suen's thinning. On the CPU; the work is that of the pixels that are taken away.

Not here: what a skeleton is for.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BITS = 2 ** np.arange(8)


def _removable(parity: int) -> Array:
    """For each of the 256 neighbourhoods, P₂ (above) to P₉ clockwise, whether the pixel goes in this half-step."""
    p = (np.arange(256)[:, None] & BITS) > 0
    rising = (~p & np.roll(p, -1, 1)).sum(1)
    above, right, below, left = p[:, 0], p[:, 2], p[:, 4], p[:, 6]
    kept = right & below & (above | left) if parity == 0 else above & left & (right | below)
    inside = (p.sum(1) >= 2) & (p.sum(1) <= 6)
    return inside & (rising == 1) & ~kept


REMOVABLE = [_removable(0), _removable(1)]


def skeleton(mask: Array) -> Array:
    """Return the skeleton of a mask (H, W), bool: lines one pixel wide where the mask is thick, in its middle.

    A pixel is looked at again only if a neighbour went since it was last seen in both half-steps.
    Source: Zhang, Suen: A fast parallel algorithm for thinning digital patterns, CACM 27 (3), 1984.

    >>> skeleton(np.ones((3, 7), bool)).astype(int)
    array([[0, 0, 0, 0, 0, 0, 0],
           [0, 1, 1, 1, 1, 0, 0],
           [0, 0, 0, 0, 0, 0, 0]])
    """
    padded = np.pad(mask.astype(bool), 1)
    width, flat = padded.shape[1], padded.ravel()
    around = np.array([-width, 1 - width, 1, width + 1, width, width - 1, -1, -width - 1])
    before = last = np.flatnonzero(flat)
    parity = 0
    while len(before) or len(last):
        seen = np.union1d(before, last)
        seen = seen[flat[seen]]
        gone = seen[REMOVABLE[parity][flat[seen[:, None] + around] @ BITS]]
        flat[gone] = False
        before, last = last, np.unique(gone[:, None] + around)
        parity = 1 - parity
    return padded[1:-1, 1:-1]
