"""Islands: changed pixels that hang together with nothing that their new class had before. They are speckle, mostly.

Not here: what changes pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

AROUND = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbours, as (down, right); the other half are their negatives."""
OTHER = -2
"""The number of a neighbour of another class; −1 is that of one which is not new."""


def islands(before: Tensor, after: Tensor) -> Tensor:
    """Return which pixels (H, W) of the labels ``after`` are in a piece of one class all of which is new.

    A piece is what hangs together over the eight neighbours. Time grows with the number of changed pixels.

    >>> before, after = torch.tensor([[0, 0, 0, 0, 1]]), torch.tensor([[0, 1, 0, 1, 1]])
    >>> islands(before, after).tolist()
    [[False, True, False, False, False]]
    """
    new = before != after
    pixels = new.flatten().nonzero()[:, 0]
    if not len(pixels):
        return new
    wide = after.shape[1] + 2
    classes = F.pad(after, (1, 1, 1, 1), value=-1).flatten()  # a border of no class: each pixel has eight neighbours
    mine = (pixels // after.shape[1] + 1) * wide + pixels % after.shape[1] + 1
    number = torch.full_like(classes, -1)
    number[mine] = torch.arange(len(pixels))
    held = torch.zeros(len(pixels), dtype=torch.bool)
    pairs = []
    for down, right in AROUND:
        for step in (down * wide + right, -down * wide - right):
            at = number[mine + step].masked_fill(classes[mine + step] != classes[mine], OTHER)
            held |= at == -1
            pairs.append(torch.stack([number[mine], at])[:, at >= 0])
    edges = torch.cat(pairs, 1).numpy()
    graph = coo_array((np.ones(edges.shape[1], np.int8), tuple(edges)), shape=(len(pixels), len(pixels)))
    count, piece = connected_components(graph, directed=False)
    kept = np.zeros(count, bool)
    kept[piece[held.numpy()]] = True
    result = torch.zeros_like(new).flatten()
    result[pixels] = torch.from_numpy(~kept[piece])
    return result.view_as(new)
