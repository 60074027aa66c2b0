"""The operator in tiles, with ATen alone: the differences of one tile at a time, then one matrix product over all taps.

A tile is a band of rows of one image, or several small images whole. Its differences D (taps · C, pixels) stay in the
cache between the pass that writes them and the product [C_out, taps · C] · [taps · C, pixels] that reads them; the
whole D of the map, eight times u for a 3×3 stencil, never exists. Backward computes it again, tile by tile, so that
nothing but u, v, W and λ is kept. The products are those of a convolution without its middle tap; the elementwise work
is halved by ``pairs``.

    y = W · D,    ∂D = Wᵀ · ∂y,    ∂W = ∂y · Dᵀ,    and ∂D goes back to ∂u and ∂v pair by pair.

Not here: the derivatives of a pair (``pairs``), of λ (``guide``), and the registration with autograd (``registered``).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from crispseg import stencil
from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.guide import prepare, prepare_adjoint
from crispseg.ops.semantic_difference.pairs import add_adjoint_of_u, add_adjoint_of_v, similarity_of
from crispseg.ops.semantic_difference.products import accumulation_type, product

TILE_ELEMENTS = 2**21
"""Numbers in D: 8 MiB of float32, small enough for a shared cache, large enough for products at their full rate."""
TILE_PIXELS = 512
"""The least pixels of a tile; below, the weights would be read more often than the pixels."""
BLOCK_ELEMENTS = 2**16
"""Numbers in a block of channels: the half dozen blocks of one visit then fit into a core's own cache."""


Tile = tuple[slice, int, int]
"""Images, first row, one past the last row."""


def forward(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """Return y (B, C_out, H, W) in the memory format of u."""
    y = empty_result(u, weight)
    if not form.half:
        return y.zero_()
    W = _flat_weight(weight, form)
    D = W.new_empty(0)
    for tile in _tiles(u, form):
        U, V = _load(u, tile, form), _load(v, tile, form)
        prepare(V.flatten(1), form.similarity, scale)
        y_tile = _map(y, tile)
        D.resize_((U.shape[0], 2 * len(form.half), *y_tile.shape[1:]))  # the first tile is the largest: one allocation
        if form.native:
            native.differences(U, V, D, form)
        else:
            for block in _blocks(U, form):
                _differences(U[block], V[block] if form.per_channel else V, D[block], form)
        y_tile.copy_(product(W, D.view(form.groups, W.shape[2], -1)).view(y_tile.shape))
    return y


def empty_result(u: Tensor, weight: Tensor) -> Tensor:
    """Room for y, in the memory format of u and the number type of W."""
    channels_last = u.is_contiguous(memory_format=torch.channels_last) and not u.is_contiguous()
    return torch.empty(
        (u.shape[0], weight.shape[0], *u.shape[2:]),
        dtype=weight.dtype,
        device=u.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def backward(
    g: Tensor, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return ∂u, ∂v, ∂W and ∂λ for g = ∂loss/∂y."""
    du, dv, dscale = torch.zeros_like(u), torch.zeros_like(v), None if scale is None else torch.zeros_like(scale)
    if not form.half:
        return du, dv, torch.zeros_like(weight), dscale
    W = _flat_weight(weight, form)
    dW: Tensor | None = None
    for tile in _tiles(u, form):
        term, dfactor = _tile_adjoint(tile, g, u, v, W, scale, form, du, dv)
        dW = term.to(_wide(W.dtype)) if dW is None else dW.add_(term)
        if dscale is not None and dfactor is not None:
            dscale += dfactor.sum_to_size(dscale.shape)
    return du, dv, torch.zeros_like(weight) if dW is None else _unflat_weight(dW, weight, form), dscale


def _tile_adjoint(
    tile: Tile, g: Tensor, u: Tensor, v: Tensor, W: Tensor, scale: Tensor | None, form: Form, du: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Add what one tile gives to ``du`` and ``dv``; return what it gives to ∂W and ∂λ. A tile's blocks end with it."""
    U, V = _load(u, tile, form), _load(v, tile, form)
    _, factor = prepare(V.flatten(1), form.similarity, scale)
    dU, dV = torch.zeros_like(U), torch.zeros_like(V)
    g_tile = _map(g, tile)
    dy = torch.empty(g_tile.shape, dtype=W.dtype, device=W.device).copy_(g_tile).view(form.groups, W.shape[1], -1)
    D = product(W.mT, dy).view(U.shape[0], -1, *g_tile.shape[1:])  # ∂D; each visit then puts D in its place
    if form.native:
        native.differences_adjoint(U, V, D, dU, dV, form)
    else:
        for block in _blocks(U, form):
            guide = block if form.per_channel else slice(None)
            _differences_adjoint(U[block], V[guide], D[block], dU[block], dV[guide], form)
    _, dfactor = prepare_adjoint(dV.flatten(1), V.flatten(1), form.similarity, factor)
    images, top, _ = tile
    stencil.fold_band(dU, du[images].transpose(0, 1), top, form.radius)
    stencil.fold_band(dV, dv[images].transpose(0, 1), top, form.radius)
    return product(dy, D.view(form.groups, W.shape[2], -1).mT), dfactor


def _differences(U: Tensor, V: Tensor, D: Tensor, form: Form) -> None:
    """Fill D (C, taps, images, rows, W) from bands U and V."""
    for (tap, opposite), offset in form.taps:
        p, q = _ends(offset, U)
        S, _ = similarity_of(form.similarity, (V.flatten(1)[p], V.flatten(1)[q]))
        step = torch.empty_like(U)
        torch.sub(U.flatten(1)[q], U.flatten(1)[p], out=step.flatten(1)[p]).mul_(1 - S if form.contrast else S)
        here, there = _two_views(step, offset, form)
        D[:, tap] = here
        _negate(there, D[:, opposite])


def _differences_adjoint(U: Tensor, V: Tensor, D: Tensor, dU: Tensor, dV: Tensor, form: Form) -> None:
    """D holds ∂D and gets D; ∂U and ∂V are added to ``dU`` and ``dV``."""
    for (tap, opposite), offset in form.taps:
        p, q = _ends(offset, U)
        v = V.flatten(1)[p], V.flatten(1)[q]
        S, a = similarity_of(form.similarity, v)
        factor = 1 - S if form.contrast else S
        G, d = torch.zeros_like(U), torch.empty_like(U)
        here, there = _two_views(G, offset, form)
        here.copy_(D[:, tap])
        there.sub_(D[:, opposite])
        G, d_ = G.flatten(1)[p], d.flatten(1)[p]
        step = torch.sub(U.flatten(1)[q], U.flatten(1)[p])
        torch.mul(step, factor, out=d_)
        here, there = _two_views(d, offset, form)
        D[:, tap] = here
        _negate(there, D[:, opposite])
        if form.similarity != "one":
            dS = step.mul_(-G if form.contrast else G)
            add_adjoint_of_v(form.similarity, dS, S, a, v, (dV.flatten(1)[p], dV.flatten(1)[q]))
        add_adjoint_of_u(G, factor, (dU.flatten(1)[p], dU.flatten(1)[q]))


def _tiles(u: Tensor, form: Form) -> Iterator[Tile]:
    B, C, H, W = u.shape
    pixels = max(TILE_PIXELS, TILE_ELEMENTS // max(1, 2 * len(form.half) * C))
    bands = -(-H * W // pixels)
    images, rows = (max(1, pixels // max(1, H * W)), H) if bands <= 1 else (1, -(-H // bands))
    for first in range(0, B if C * H * W else 0, images):
        for top in range(0, H, rows):
            yield slice(first, min(first + images, B)), top, min(top + rows, H)


def _map(x: Tensor, tile: Tile) -> Tensor:
    """The pixels of a tile, (C, images, rows, W): a view."""
    images, top, bottom = tile
    return x[images, :, top:bottom].transpose(0, 1)


def _load(x: Tensor, tile: Tile, form: Form) -> Tensor:
    """A tile with its border of neighbours, (C, images, rows + 2r, W + 2r), in a number type that bears differences."""
    r, (images, top, bottom) = form.radius, tile
    source = x[images].transpose(0, 1)
    shape = (*source.shape[:2], bottom - top + 2 * r, source.shape[3] + 2 * r)
    band = torch.empty(shape, dtype=_wide(x.dtype), device=x.device)
    stencil.load_band(band, source, top, r)
    return band


def _ends(offset: stencil.Offset, band: Tensor) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where p and q = p + offset are in a band flattened to (C, pixels): one shift serves all rows and images."""
    shift = offset[0] * band.shape[-1] + offset[1]
    return (slice(None), slice(band[0].numel() - shift)), (slice(None), slice(shift, None))


def _two_views(d: Tensor, offset: stencil.Offset, form: Form) -> tuple[Tensor, Tensor]:
    """What the taps o and −o see of d: d(p) and d(p − o)."""
    return stencil.view(d, (0, 0), form.radius), stencil.view(d, (-offset[0], -offset[1]), form.radius)


def _blocks(U: Tensor, form: Form) -> Iterator[slice]:
    """Channels in blocks; all at once where S needs all of them, since it is then computed once."""
    channels = U.shape[0]
    size = max(1, BLOCK_ELEMENTS // U[0].numel()) if form.per_channel else channels
    for first in range(0, channels, size):
        yield slice(first, first + size)


def _flat_weight(weight: Tensor, form: Form) -> Tensor:
    """W as (groups, C_out / groups, C / groups · taps) without its middle tap."""
    taps, h = weight.flatten(2), len(form.half)
    W = torch.cat([taps[..., :h], taps[..., h + 1 :]], dim=-1)
    return W.view(form.groups, weight.shape[0] // form.groups, -1).to(accumulation_type(weight.dtype))


def _unflat_weight(dW: Tensor, weight: Tensor, form: Form) -> Tensor:
    """Transpose of :func:`_flat_weight`; the middle tap gets nothing."""
    h = len(form.half)
    dW = dW.view(*weight.shape[:2], 2 * h)
    out = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    taps = out.flatten(2)
    taps[..., :h] = dW[..., :h]
    taps[..., h + 1 :] = dW[..., h:]
    return out


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _negate(x: Tensor, out: Tensor) -> None:
    if out.dtype == x.dtype:
        torch.neg(x, out=out)
    else:
        out.copy_(-x)
