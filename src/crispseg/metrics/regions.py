"""Where a boundary is: the band along it, and the boundary pixels themselves, from a map of codes (see ``labels``).

Both follow one rule: only pixels that carry a class are seen. Void (code 0) is nobody's neighbour, so the edge of a
void region is no boundary; two classes on either side of a thin void line still have a band: each has the other near.

Not here: what is counted inside.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from crispseg.metrics.labels import codes


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


def near_boundary(truth: Tensor, d: int, num_classes: int, ignore_index: int | None = 255) -> Tensor:
    """Return where a labelled pixel of ``truth``, (B, H, W) or (H, W), is within d px of another class; (B, H, W).

    >>> near_boundary(torch.tensor([[0, 0, 1, 255]]), 1, num_classes=2).tolist()
    [[[False, True, True, False]]]
    """
    code = codes(truth, truth, num_classes, ignore_index)[1]
    return band(code, d, num_classes) & code.bool()


def bands(code: Tensor, radii: Sequence[int], num_classes: int, *, border: bool = False) -> Iterator[Tensor]:
    """Yield ``band(code, r, num_classes)`` for each r of ascending radii; each window grows from the one before it."""
    # The smallest class is found as the largest of C + 1 − code, so that void, 0 in both, never wins.
    extremes = torch.cat([code, (num_classes + 1 - code) * code.bool()])
    spare, was = torch.empty_like(extremes), 0
    for r in radii:
        extremes, spare = _grow(extremes, spare, was, r)
        high, low = extremes.chunk(2)
        # xor, then bool: comparing a tensor with a number is many times slower (torch 2.15, CPU).
        region = ((high + low) ^ (num_classes + 1)).bool()
        if border:
            for dim in (-2, -1):
                n = code.shape[dim]
                region.narrow(dim, 0, min(r, n)).fill_(True)
                region.narrow(dim, max(0, n - r), min(r, n)).fill_(True)
        yield region
        was = r


def near(mask: Tensor, d: int) -> Tensor:
    """Return where a pixel of ``mask``, bool (B, H, W), lies within d px in the maximum norm: its dilation.

    >>> near(torch.tensor([[[True, False, False]]]), 1).tolist()
    [[[True, True, False]]]
    """
    x = mask.to(torch.uint8)  # a copy: it is written to
    return _grow(x, torch.empty_like(x), 0, d)[0].bool()


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


def _grow(x: Tensor, spare: Tensor, was: int, d: int) -> tuple[Tensor, Tensor]:
    """From the maxima over windows of half-width ``was``, cut off at the image's edges, to half-width d.

    Two windows of half-width r, one s ≤ r to the left of a pixel and one s to its right, make one of half-width r + s:
    log2 steps of two views each. They are written to ``spare`` and ``x`` alternately, since fresh memory for each would
    cost more than the maximum. Returns the two, the maxima first.
    """
    for dim in (-1, -2):
        r, n = was, x.shape[dim]
        while r < min(d, n - 1):  # further out there is nothing more to see
            step = min(max(r, 1), d - r, n // 2)
            _widen(x, spare, dim, step)
            if r == 0:  # the two neighbours leave the pixel itself out
                torch.maximum(x, spare, out=spare)
            x, spare, r = spare, x, r + step
    return x, spare


def _widen(x: Tensor, out: Tensor, dim: int, step: int) -> None:
    """out_i = max(x_{i − step}, x_{i + step}), where beyond the edge lies the last pixel: its window is cut off too."""
    n = x.shape[dim]
    left, right = x.narrow(dim, 0, n - step), x.narrow(dim, step, n - step)
    inner = n - 2 * step
    if inner:
        torch.maximum(left.narrow(dim, 0, inner), right.narrow(dim, step, inner), out=out.narrow(dim, step, inner))
    torch.maximum(x.narrow(dim, 0, 1), right.narrow(dim, 0, step), out=out.narrow(dim, 0, step))
    torch.maximum(left.narrow(dim, inner, step), x.narrow(dim, n - 1, 1), out=out.narrow(dim, n - step, step))
