"""Counting: how many pixels of each image carry each code. Integers in, int64 out, exact on any device, in any order.

Not here: what the codes mean, ratios of counts (``scores``).
"""

import math

import torch
from torch import Tensor

LANES = 4
ROW = 1024


def tally(code: Tensor, bins: int) -> Tensor:
    """Return n[b, k] = #{p : code_{b,p} = k}, int64 (B, bins), for integer maps ``code`` (B, H, W) in 0 … bins − 1.

    >>> tally(torch.tensor([[[0, 2, 2]], [[1, 1, 1]]]), 3).tolist()
    [[1, 0, 2], [0, 3, 0]]
    """
    return torch.stack([_histogram(image.flatten(), bins) for image in code])


def joint_tally(*parts: tuple[Tensor, int]) -> Tensor:
    """Return n[b, i, j, …] = #{p : i and j and … at p}, int64 (B, I, J, …), for maps (B, H, W) given with their sizes.

    >>> rows, columns = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[2, 0, 0]]])
    >>> joint_tally((rows, 2), (columns, 3)).tolist()
    [[[0, 0, 1], [2, 0, 0]]]
    """
    sizes = [size for _, size in parts]
    bins = math.prod(sizes)
    dtype = narrowest(bins * LANES)
    key = parts[0][0].to(dtype)
    for code, size in parts[1:]:
        key = torch.add(code.to(dtype), key, alpha=size)  # of one type: adding two types is several times slower
    return tally(key, bins).view(-1, *sizes)


def narrowest(size: int) -> torch.dtype:
    """The smallest signed integer type that counts up to ``size``: less memory to move."""
    return torch.int16 if size <= 2**15 else torch.int32 if size <= 2**31 else torch.int64


def _histogram(code: Tensor, bins: int) -> Tensor:
    # Neighbours mostly carry the same code, and a counter that is bumped twice in a row makes the second bump wait for
    # the first. So neighbours count into different copies of the histogram. (Long rows: short ones add slowly.)
    whole = len(code) - len(code) % ROW
    copies = torch.arange(0, LANES * bins, bins, device=code.device, dtype=narrowest(LANES * bins))
    lanes = (code[:whole].view(-1, ROW) + copies.repeat(ROW // LANES)).flatten()
    counts = torch.bincount(lanes, minlength=LANES * bins).view(LANES, bins).sum(0)
    return counts + torch.bincount(code[whole:], minlength=bins)
