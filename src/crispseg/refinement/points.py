"""Points of an integer lattice in a sorted list: which are there, and where the neighbour of each is.

A point is one number, its coordinates in mixed radix, so that a step on the lattice is a sum and a search is binary.
Not here: which lattice, and what is stored at its points.
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
MOST = 2**62


class Frame(NamedTuple):
    """The box in which all points and their neighbours lie: its lowest corner and the stride of each coordinate."""

    low: Array
    strides: Array

    def pack(self, points: Array) -> Array:
        """Return one number (N,) for each point (N, D)."""
        packed: Array = (points.astype(np.int64) - self.low) @ self.strides
        return packed


def frame(low: Array, high: Array) -> Frame:
    """Return the frame of points between ``low`` and ``high``, both included. ValueError if it is too large."""
    spans = [int(last) - int(first) + 1 for first, last in zip(low, high, strict=True)]
    strides = [1]
    for span in spans:
        strides.append(strides[-1] * span)
    if strides[-1] > MOST:
        raise ValueError("the standard deviations are too small: the image has more cells than can be numbered")
    return Frame(np.asarray(low, np.int64), np.asarray(strides[:-1], np.int64))


def find(points: Array, wanted: Array) -> Array:
    """Return where each of ``wanted`` is among the sorted ``points``; ``len(points)`` for one that is not there.

    >>> find(np.array([2, 5, 7]), np.array([5, 6, 9]))
    array([1, 3, 3])
    """
    at = np.searchsorted(points, wanted)
    there = points[np.minimum(at, len(points) - 1)] == wanted
    return np.where(there, at, len(points))
