"""Islands: changed pixels that hang together with nothing that their new class had before. They are speckle, mostly.

Not here: what changes pixels.
"""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

AROUND = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbours, as (down, right)."""


def islands(before: Tensor, after: Tensor) -> Tensor:
    """Return which pixels (H, W) of the labels ``after`` are in a piece of one class all of which is new.

    A piece is what hangs together over the eight neighbours. Time grows with the number of changed pixels.

    >>> before, after = torch.tensor([[0, 0, 0, 0, 1]]), torch.tensor([[0, 1, 0, 1, 1]])
    >>> islands(before, after).tolist()
    [[False, True, False, False, False]]
    """
    new = before != after
    if not bool(new.any()):
        return new
    place = torch.full(after.shape, -1)
    pixels = new.nonzero()
    place[new] = torch.arange(len(pixels))
    held = torch.zeros(len(pixels), dtype=torch.bool)
    pairs = []
    for down, right in AROUND:
        one, other = _shifted(down, right, after.shape)
        alike = after[one] == after[other]
        a, b = place[one][alike], place[other][alike]
        pairs.append(torch.stack([a, b], 1)[(a >= 0) & (b >= 0)])
        held[a[(a >= 0) & (b < 0)]] = True
        held[b[(b >= 0) & (a < 0)]] = True
    edges = torch.cat(pairs).numpy()
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(len(pixels), len(pixels)))
    count, piece = connected_components(graph, directed=False)
    kept = np.zeros(count, bool)
    kept[piece[held.numpy()]] = True
    result = torch.zeros_like(new)
    result[new] = torch.from_numpy(~kept[piece])
    return result


def _shifted(down: int, right: int, shape: torch.Size) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Two windows of a map, the second one the first moved by (down, right)."""
    height, width = shape
    x, move = slice(max(0, -right), width - max(0, right)), slice(max(0, right), width - max(0, -right))
    return (slice(0, height - down), x), (slice(down, height), move)
