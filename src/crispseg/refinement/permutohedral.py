"""Gaussian filtering in many dimensions on the permutohedral lattice: splat, blur, slice; linear in the pixels.

    (K v)_i ≈ c Σ_j exp(−‖f_i − f_j‖² / 2) v_j        c: a constant of the lattice

An approximation: docs/refinement.md says how near, tests/refinement hold it to that. Not here: what is filtered.

Source: Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from crispseg.refinement.points import Array, Frame, find, frame

CHUNK = 2**18
"""Pixels worked on at a time: the temporaries stay small."""


class Lattice(NamedTuple):
    """The filter K for fixed features: barycentric weights (N, M), and where the two neighbours along each axis are."""

    weights: Any
    neighbours: list[tuple[Array, Array]]

    def __call__(self, values: Array) -> Array:
        """Return K v (N, C) of values (N, C)."""
        at = np.zeros((self.weights.shape[1] + 1, values.shape[1]), values.dtype)  # the last: what is not there
        at[:-1] = self.weights.T @ values
        for before, after in self.neighbours:
            at[:-1] += (at[before] + at[after]) / 2
        sliced: Array = self.weights @ at[:-1]
        return sliced


def lattice(features: Array) -> Lattice:
    """Return the lattice of ``features`` (N, D), each coordinate in standard deviations of the Gaussian.

    Raises ValueError if these are so small that the cells cannot be numbered.
    """
    x = _elevated(features.astype(np.float32))
    n, e = x.shape
    box = frame(np.floor(x.min(0))[:-1] - 2 * e, np.ceil(x.max(0))[:-1] + 2 * e)
    known, where, weights = [], [], []
    for start in range(0, n, CHUNK):
        keys, barycentric = _simplex(x[start : start + CHUNK], box)
        points, inverse = np.unique(keys, return_inverse=True)
        known.append(points)
        where.append(inverse.reshape(-1))
        weights.append(barycentric.reshape(-1))
    vertices = np.unique(np.concatenate(known))
    columns = np.concatenate([np.searchsorted(vertices, p)[i] for p, i in zip(known, where, strict=True)])
    rows = np.arange(0, n * e + 1, e)
    matrix = csr_matrix((np.concatenate(weights), columns, rows), shape=(n, len(vertices)))
    back = -int(box.strides.sum())  # one less in every coordinate that is kept
    steps = [back + e * int(stride) for stride in (*box.strides, 0)]
    return Lattice(matrix, [(find(vertices, vertices - step), find(vertices, vertices + step)) for step in steps])


def _elevated(f: Array) -> Array:
    """Features (N, D) in the plane of D + 1 coordinates whose sum is 0, where the blur has a deviation of 1."""
    n, d = f.shape
    x, total = np.empty((n, d + 1), np.float32), np.zeros(n, np.float32)
    for i in range(d, 0, -1):
        along = f[:, i - 1] * np.float32((d + 1) * np.sqrt(2 / 3) / np.sqrt(i * (i + 1)))
        x[:, i] = total - i * along
        total = total + along
    x[:, 0] = total
    return x


def _simplex(x: Array, box: Frame) -> tuple[Array, Array]:
    """The numbers of the D + 1 vertices around each point of x (n, D + 1), and its barycentric weights; (n, D + 1)."""
    n, e = x.shape
    down, up = np.floor(x / e) * e, np.ceil(x / e) * e
    nearest = np.where(up - x < x - down, up, down)  # the remainder-0 point nearby, but for its sum
    order = np.argsort(nearest - x, axis=1, kind="stable")
    rank = np.empty((n, e), np.int64)
    np.put_along_axis(rank, order, np.arange(e)[None].repeat(n, 0), 1)
    rank += np.rint(nearest.sum(1) / e).astype(np.int64)[:, None]
    wrapped = np.where(rank < 0, e, np.where(rank >= e, -e, 0))
    rank, nearest = rank + wrapped, nearest + wrapped
    t = np.empty((n, e), np.float32)
    np.put_along_axis(t, rank, ((x - nearest) / e).astype(np.float32), 1)
    barycentric = np.empty((n, e), np.float32)
    barycentric[:, 0] = 1 + t[:, -1] - t[:, 0]
    barycentric[:, 1:] = (t[:, :-1] - t[:, 1:])[:, ::-1]
    keys = np.empty((n, e), np.int64)
    keys[:, 0] = box.pack(nearest[:, :-1])
    for i in range(1, e):  # the vertex of remainder i
        keys[:, i] = keys[:, 0] + np.where(rank[:, :-1] < e - i, i, i - e) @ box.strides
    return keys, barycentric
