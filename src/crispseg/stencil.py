"""The stencil: neighbour offsets, shifted views, their adjoint, and the border rule. The one home of all three.

A neighbour q of pixel p is q = p + (dy, dx). **Border rule**: a coordinate that leaves the map is clamped to it, so the
border pixel repeats (what ``F.pad(mode="replicate")`` does). The border is built by slicing and ``torch.cat``, because
inductor of torch 2.15 breaks on the backward of replicate padding for channels-last input.

Large maps are worked on in **bands** of rows: a padded band shows rows top … bottom of a map and the ``radius`` rows
above and below them.

Not here: what is done with the neighbours.
"""

import torch
from torch import Tensor

Offset = tuple[int, int]


def offsets(kernel_size: int, dilation: int = 1) -> list[Offset]:
    """Return (dy, dx) of every tap in the row-major order of ``weight.flatten(-2)``; the middle one is (0, 0).

    >>> offsets(3)[:4]
    [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    """
    r = kernel_size // 2
    return [(dy * dilation, dx * dilation) for dy in range(-r, r + 1) for dx in range(-r, r + 1)]


def half_offsets(kernel_size: int, dilation: int = 1) -> list[Offset]:
    """Return the taps after the middle one, nearest first; together with their negatives they are all the neighbours.

    >>> half_offsets(3)
    [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    return offsets(kernel_size, dilation)[kernel_size**2 // 2 + 1 :]


def pad(x: Tensor, radius: int) -> Tensor:
    """Repeat the border of ``x`` (…, H, W) ``radius`` times on all four sides: (…, H + 2r, W + 2r)."""
    for dim in (-2, -1):
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
        x = torch.cat([first] * radius + [x] + [last] * radius, dim=dim)
    return x


def pad_adjoint(g: Tensor, radius: int) -> Tensor:
    """Transpose of :func:`pad`: fold the border of ``g`` (…, H + 2r, W + 2r) back onto the map, (…, H, W)."""
    return pad_adjoint_(g.clone(), radius)


def pad_adjoint_(g: Tensor, radius: int) -> Tensor:
    """The same; overwrites ``g``."""
    for dim in (-1, -2):
        n = g.shape[dim] - 2 * radius
        for first, at in ((0, radius), (n + radius, n + radius - 1)):
            border = g.narrow(dim, first, radius)
            g.narrow(dim, at, 1).add_(border if radius == 1 else border.sum(dim, keepdim=True))
        g = g.narrow(dim, radius, n)
    return g.clone()


def view(padded: Tensor, offset: Offset, radius: int) -> Tensor:
    """The view of a padded map in which pixel p shows its neighbour p + ``offset``; no copy."""
    dy, dx = offset
    height, width = padded.shape[-2] - 2 * radius, padded.shape[-1] - 2 * radius
    return padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]


def shifted(x: Tensor, offset: Offset) -> Tensor:
    """Return x_{p + offset} at every pixel p, borders repeated; same shape as ``x`` (…, H, W).

    >>> shifted(torch.tensor([[1.0, 2.0, 3.0]]), (0, 1))
    tensor([[2., 3., 3.]])
    """
    radius = max(map(abs, offset))
    return view(pad(x, radius), offset, radius)


def load_band(band: Tensor, x: Tensor, top: int, radius: int) -> None:
    """Fill ``band`` (…, T + 2r, W + 2r) with rows top − r … top + T + r of ``x`` (…, H, W), borders repeated."""
    above, first, last, below = _rows(band, x, top, radius)
    width = x.shape[-1]
    inner = band[..., radius : radius + width]
    inner[..., above:below, :].copy_(x[..., first:last, :])
    inner[..., :above, :].copy_(inner[..., above : above + 1, :])
    inner[..., below:, :].copy_(inner[..., below - 1 : below, :])
    band[..., :radius].copy_(inner[..., :1])
    band[..., radius + width :].copy_(inner[..., width - 1 :])


def fold_band(band: Tensor, x: Tensor, top: int, radius: int) -> None:
    """Transpose of :func:`load_band`: add ``band`` to the map ``x`` that it shows. The border of ``band`` is lost."""
    above, first, last, below = _rows(band, x, top, radius)
    width = x.shape[-1]
    inner = band[..., radius : radius + width]
    inner[..., :1].add_(band[..., :radius].sum(-1, keepdim=True))
    inner[..., width - 1 :].add_(band[..., radius + width :].sum(-1, keepdim=True))
    inner[..., above : above + 1, :].add_(inner[..., :above, :].sum(-2, keepdim=True))
    inner[..., below - 1 : below, :].add_(inner[..., below:, :].sum(-2, keepdim=True))
    x[..., first:last, :].add_(inner[..., above:below, :])


def _rows(band: Tensor, x: Tensor, top: int, radius: int) -> tuple[int, int, int, int]:
    """Where band and map meet: band rows above … below show map rows first … last; the other band rows repeat."""
    start, height = top - radius, x.shape[-2]
    first, last = max(start, 0), min(start + band.shape[-2], height)
    return first - start, first, last, last - start
