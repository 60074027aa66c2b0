"""Where a boundary is: the band along it, and the boundary pixels themselves, from a map of codes (see ``labels``).

Both follow one rule: only pixels that carry a class are seen. Void (code 0) is nobody's neighbour, so the edge of a void
region is no boundary; two classes on either side of a thin void line still have a band, since each has the other near.

Not here: what is counted inside.
"""

import math

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
    smallest class in the (2d+1)² window differ. Of use at void pixels too (two classes are within d), but not meant.

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
    return _mixed(*_widen(*_extremes(code, num_classes), 0, d, border, num_classes), num_classes)


def bands(code: Tensor, radii: tuple[int, ...], num_classes: int) -> list[Tensor]:
    """Return ``band(code, r, num_classes)`` for each r, ascending; each window grows from the one before it."""
    high, low = _extremes(code, num_classes)
    out, reached = [], 0
    for r in radii:
        high, low = _widen(high, low, reached, r, False, num_classes)
        out.append(_mixed(high, low, num_classes))
        reached = r
    return out


def contour(code: Tensor) -> Tensor:
    """Return the boundary pixels, as codes: code_p where one of p's 4 neighbours carries another class, 0 elsewhere.

    The boundary of class c so lies inside c, one pixel wide, the boundary of its neighbour on the other side of the
    crack. Neither void nor the edge of the image makes a boundary. Same shape and type as ``code`` (B, H, W).

    >>> contour(torch.tensor([[[1, 1, 2, 2, 0, 3]]], dtype=torch.uint8)).tolist()
    [[[0, 1, 2, 0, 0, 0]]]
    """
    edge = torch.zeros_like(code, dtype=torch.bool)
    for dim in (-2, -1):
        n = code.shape[dim] - 1
        one, other = code.narrow(dim, 0, n), code.narrow(dim, 1, n)
        step = (one != other) & (one != 0) & (other != 0)
        edge.narrow(dim, 0, n).logical_or_(step)
        edge.narrow(dim, 1, n).logical_or_(step)
    return code * edge


def _extremes(code: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    # The smallest class is found as the largest of C + 1 − code, so that void, 0 in both, never wins.
    return code, (num_classes + 1 - code) * (code != 0)


def _widen(high: Tensor, low: Tensor, was: int, d: int, border: bool, num_classes: int) -> tuple[Tensor, Tensor]:
    d = min(d, max(high.shape[-2:]))  # further out there is nothing more to see
    if d <= was:
        return high, low
    return _grow(high, was, d, num_classes + 1 if border else None), _grow(low, was, d, 0 if border else None)


def _grow(x: Tensor, was: int, d: int, outside: int | None) -> Tensor:
    """From the maxima over windows of half-width ``was`` to those of half-width d, one dimension at a time.

    Two windows of one length, shifted by at most that length, make one longer window: about log2(d / was) steps, each a
    maximum of two views. Beyond the image lies ``outside``; None clamps to the last pixel, whose window every window
    that reaches over the edge contains, so it adds nothing.
    """
    step = d - was
    for dim in (-1, -2):
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
        if outside is not None:
            first = last = torch.full_like(first, outside)
        size = [-1] * x.ndim
        size[dim] = step
        x = torch.cat([first.expand(size), x, last.expand(size)], dim)
        length, goal = 2 * was + 1, 2 * d + 1
        while length < goal:
            shift = min(length, goal - length)
            n = x.shape[dim] - shift
            x = torch.maximum(x.narrow(dim, 0, n), x.narrow(dim, shift, n))
            length += shift
    return x


def _mixed(high: Tensor, low: Tensor, num_classes: int) -> Tensor:
    return high + low != num_classes + 1
