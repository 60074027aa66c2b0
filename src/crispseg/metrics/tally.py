"""Counting: how many pixels of each image carry each code. Integers in, int64 out, exact in any order and on any device.

Not here: what the codes mean, ratios of counts (``scores``).
"""

import torch
from torch import Tensor


def tally(code: Tensor, bins: int) -> Tensor:
    """Return n[b, k] = #{p : code_{b,p} = k}, int64 (B, bins), for integer maps ``code`` (B, H, W) in 0 … bins − 1.

    >>> tally(torch.tensor([[[0, 2, 2]], [[1, 1, 1]]]), 3).tolist()
    [[1, 0, 2], [0, 3, 0]]
    """
    images = code.shape[0]
    if images == 1:
        return torch.bincount(code.flatten(), minlength=bins).view(1, bins)
    first = torch.arange(0, images * bins, bins, device=code.device, dtype=narrowest(images * bins))
    return torch.bincount((first.view(-1, 1, 1) + code).flatten(), minlength=images * bins).view(images, bins)


def joint_tally(row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """Return n[b, i, j] = #{p : row_{b,p} = i, column_{b,p} = j}, int64 (B, rows, columns).

    >>> joint_tally(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[2, 0, 0]]]), 2, 3).tolist()
    [[[0, 0, 1], [2, 0, 0]]]
    """
    key = row.to(narrowest(rows * columns)) * columns + column
    return tally(key, rows * columns).view(-1, rows, columns)


def narrowest(size: int) -> torch.dtype:
    """The smallest signed integer type that counts to ``size``: less memory to move."""
    return torch.int16 if size <= 2**15 else torch.int32 if size <= 2**31 else torch.int64
