"""Where a boundary is: the band along it, and the boundary pixels themselves, from a map of codes (see ``labels``).

Both follow one rule: only pixels that carry a class are seen. Void (code 0) is nobody's neighbour, so the edge of a
void region is no boundary; two classes on either side of a thin void line still have a band: each has the other near.

Not here: what is counted inside.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def band_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Return d = round(ratio · √(H² + W²)) in px, at least 1 (Cheng et al. 2021; halves go to the even number).

    >>> band_width(1024, 2048), band_width(360, 480)
    (46, 12)
    """
    return max(1, round(ratio * math.sqrt(height**2 + width**2)))


def band(code: Tensor, d: int, num_classes: int, *, border: bool = False) -> Tensor:
    """Return where a pixel has another class within d px: the pixels of each class within d of its own contour.

        band_p  ⇔  ∃ q: ‖q − p‖_∞ ≤ d, code_q ≠ code_p, neither void

    which is what d erosions by 3×3 take off each class's mask, for all classes in one pass: the largest and the
    smallest class in the (2d+1)² window differ. What it says of void pixels means nothing.

    Parameters
    ----------
    code
        (B, H, W), 0 for void, c + 1 for class c.
    d
        Half-width of the band in px, ≥ 1.
    num_classes
        C, the largest code.
    border
        Count what lies beyond the image as another class, as the published Boundary IoU does.

    Returns
    -------
    Tensor
        bool, (B, H, W).

    Examples
    --------
    >>> band(torch.tensor([[[1, 1, 1, 2, 2, 2]]], dtype=torch.uint8), 1, 2).int().tolist()
    [[[0, 0, 1, 1, 0, 0]]]
    """
    return next(bands(code, (d,), num_classes, border=border))


def bands(code: Tensor, radii: Sequence[int], num_classes: int, *, border: bool = False) -> Iterator[Tensor]:
    """Yield ``band(code, r, num_classes)`` for each r of ascending radii; each window grows from the one before it."""
    height, width = code.shape[-2:]
    reach = min(radii[-1], max(height, width))  # further out there is nothing more to see
    # The smallest class is found as the largest of C + 1 − code, so that void, 0 in both, never wins.
    high = _pad(code, reach, num_classes + 1 if border else None)
    low = _pad((num_classes + 1 - code) * code.bool(), reach, 0 if border else None)
    extremes, was = torch.cat([high, low]), 0
    for r in radii:
        r = min(r, reach)
        extremes, was = _grow(extremes, was, r), r
        margin = reach - r
        high, low = extremes[:, margin : margin + height, margin : margin + width].chunk(2)
        # xor, then bool: comparing a tensor with a number is many times slower (torch 2.15, CPU).
        yield ((high + low) ^ (num_classes + 1)).bool()


def near(mask: Tensor, d: int) -> Tensor:
    """Return where a pixel of ``mask``, bool (B, H, W), lies within d px in the maximum norm: its dilation.

    >>> near(torch.tensor([[[True, False, False]]]), 1).tolist()
    [[[True, True, False]]]
    """
    d = min(d, max(mask.shape[-2:]))
    return _grow(_pad(mask.view(torch.uint8), d, 0), 0, d).bool()


def contour(code: Tensor) -> Tensor:
    """Return the boundary pixels, as codes: code_p where one of p's 4 neighbours carries another class, 0 elsewhere.

    The boundary of class c so lies inside c, one pixel wide, the boundary of its neighbour on the other side of the
    crack. Neither void nor the edge of the image makes a boundary. Same shape and type as ``code`` (B, H, W).

    >>> contour(torch.tensor([[[1, 1, 2, 2, 0, 3]]], dtype=torch.uint8)).tolist()
    [[[0, 1, 2, 0, 0, 0]]]
    """
    labelled = code.bool()
    edge = torch.zeros_like(labelled)
    for dim in (-2, -1):
        n = code.shape[dim] - 1
        step = code.narrow(dim, 0, n) != code.narrow(dim, 1, n)
        step &= labelled.narrow(dim, 0, n)
        step &= labelled.narrow(dim, 1, n)
        edge.narrow(dim, 0, n).logical_or_(step)
        edge.narrow(dim, 1, n).logical_or_(step)
    return code * edge


def _pad(x: Tensor, radius: int, outside: int | None) -> Tensor:
    """Add ``radius`` pixels on all sides. None repeats the last pixel: a window that sees the copy has it anyway."""
    for dim in (-2, -1):
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
        if outside is not None:
            first = last = torch.full_like(first, outside)
        size = [-1] * x.ndim
        size[dim] = radius
        x = torch.cat([first.expand(size), x, last.expand(size)], dim)
    return x


def _grow(x: Tensor, was: int, d: int) -> Tensor:
    """From the maxima over windows of half-width ``was`` to half-width d, where they fit: d − was less on each side.

    Two windows of one length, shifted by at most that length, make a longer one: log2 steps of two views each. They
    write to one spare map and to ``x`` by turns; fresh memory for each would cost more than the maximum.
    """
    here, there = x, torch.empty_like(x)
    for dim in (-1, -2):
        length, goal = 2 * was + 1, 2 * d + 1
        while length < goal:
            shift = min(length, goal - length)
            n = x.shape[dim] - shift
            first, second = x.narrow(dim, 0, n), x.narrow(dim, shift, n)
            x = torch.maximum(first, second, out=there[:, : first.shape[1], : first.shape[2]])
            here, there = there, here
            length += shift
    return x
