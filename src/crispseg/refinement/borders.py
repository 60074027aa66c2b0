"""Borders of a mask, and what is near them: label maps and sets of pixels, no probabilities beyond their largest.

Not here: what happens there.
"""

import torch
from torch import Tensor

ROWS = 16
"""Rows worked on at a time: they stay in a core's cache."""


def likeliest(p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class (H, W), int64, of the largest of p (K, H, W), the first of equal ones, and its value (H, W).

    >>> likeliest(torch.tensor([[[0.2, 0.5]], [[0.8, 0.5]]]))[0].tolist()
    [[1, 0]]
    """
    most, label = p[0].clone(), torch.zeros(p.shape[1:], dtype=torch.long, device=p.device)
    for top in range(0, p.shape[1], ROWS):
        rows = slice(top, top + ROWS)
        m, at = most[rows], label[rows]
        for k in range(1, len(p)):
            at.masked_fill_(p[k, rows] > m, k)
            torch.maximum(m, p[k, rows], out=m)
    return label, most


def borders(label: Tensor) -> Tensor:
    """Return which pixels (…, H, W) of a label map touch one of another class: right, left, above or below.

    >>> borders(torch.tensor([[0, 0, 1, 1, 1]])).tolist()
    [[False, True, True, False, False]]
    """
    edge = torch.zeros_like(label, dtype=torch.bool)
    for dim in (-2, -1):
        n = label.shape[dim]
        differs = label.narrow(dim, 1, n - 1) != label.narrow(dim, 0, n - 1)
        edge.narrow(dim, 1, n - 1).logical_or_(differs)
        edge.narrow(dim, 0, n - 1).logical_or_(differs)
    return edge


def within(pixels: Tensor, radius: int) -> Tensor:
    """Return which pixels (…, H, W) are at most ``radius`` from one of ``pixels``, in the maximum norm.

    >>> within(torch.tensor([[False, False, False, True]]), 2).tolist()
    [[False, True, True, True]]
    """
    for dim in (-2, -1):
        n, done = pixels.shape[dim], 0
        while done < radius:  # grown by ``done``, a pixel is done + 1 long or longer, at the map's end too
            further = min(done + 1, radius - done)
            grown = pixels.clone()
            if further < n:
                grown.narrow(dim, further, n - further).logical_or_(pixels.narrow(dim, 0, n - further))
                grown.narrow(dim, 0, n - further).logical_or_(pixels.narrow(dim, further, n - further))
            else:
                grown.copy_(pixels.any(dim, keepdim=True).expand_as(pixels))
            pixels, done = grown, done + further
    return pixels


def near_borders(p: Tensor, reach: int) -> Tensor:
    """Whether a pixel of p (B, K, H, W) is within ``reach`` px, in the maximum norm, of one that touches another class.

    (B, 1, H, W) bool.
    """
    return within(borders(p.argmax(1)), reach)[:, None]
