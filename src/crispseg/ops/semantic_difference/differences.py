"""The elementwise stage in ATen, for every similarity, form and number type: the differences of a tile, and back.

D is (channels, taps, images, rows, W). Each pair of neighbours is visited once and serves two taps (``pairs``); borders
are repeated on padded bands, so that the border needs no special case.

Not here: the arithmetic of a pair, and the same stage compiled (``native``).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from crispseg import stencil
from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.guide import prepare, prepare_adjoint
from crispseg.ops.semantic_difference.pairs import add_adjoint_of_u, add_adjoint_of_v, similarity_of
from crispseg.ops.semantic_difference.tiles import Tile

BLOCK_ELEMENTS = 2**16
"""Numbers in a block of channels: the half dozen blocks of one visit then fit into a core's own cache."""


def differences(u: Tensor, v: Tensor, scale: Tensor | None, D: Tensor, tile: Tile, form: Form) -> None:
    """Fill D from maps u and v."""
    U, V = _load(u, tile, form), _load(v, tile, form)
    prepare(V.flatten(1), form.similarity, scale)
    for block in _blocks(U, form):
        _differences(U[block], V[block] if form.per_channel else V, D[block], form)


def adjoint(
    u: Tensor, v: Tensor, scale: Tensor | None, D: Tensor, du: Tensor, dv: Tensor, tile: Tile, form: Form
) -> None:
    """D holds ∂D and gets D; ∂u and ∂v are added to the maps ``du`` and ``dv``."""
    U, V = _load(u, tile, form), _load(v, tile, form)
    factor = prepare(V.flatten(1), form.similarity, scale)
    dU, dV = torch.zeros_like(U), torch.zeros_like(V)
    for block in _blocks(U, form):
        guide = block if form.per_channel else slice(None)
        _differences_adjoint(U[block], V[guide], D[block], dU[block], dV[guide], form)
    prepare_adjoint(dV.flatten(1), V.flatten(1), form.similarity, factor)
    for band, map_ in ((dU, du), (dV, dv)):
        stencil.fold_band(band, map_[tile.images].transpose(0, 1), tile.top, form.radius)


def _differences(U: Tensor, V: Tensor, D: Tensor, form: Form) -> None:
    for (tap, opposite), offset in form.taps:
        p, q = _ends(offset, U)
        S, _ = similarity_of(form.similarity, (V.flatten(1)[p], V.flatten(1)[q]))
        step = torch.empty_like(U)
        torch.sub(U.flatten(1)[q], U.flatten(1)[p], out=step.flatten(1)[p]).mul_(1 - S if form.contrast else S)
        _put(step, D, tap, opposite, offset, form)


def _differences_adjoint(U: Tensor, V: Tensor, D: Tensor, dU: Tensor, dV: Tensor, form: Form) -> None:
    for (tap, opposite), offset in form.taps:
        p, q = _ends(offset, U)
        v = V.flatten(1)[p], V.flatten(1)[q]
        S, a = similarity_of(form.similarity, v)
        factor = 1 - S if form.contrast else S
        G, d = torch.zeros_like(U), torch.empty_like(U)
        here, there = _two_views(G, offset, form)
        here.copy_(D[:, tap])
        there.sub_(D[:, opposite])
        G, step = G.flatten(1)[p], torch.sub(U.flatten(1)[q], U.flatten(1)[p])
        torch.mul(step, factor, out=d.flatten(1)[p])
        _put(d, D, tap, opposite, offset, form)
        if form.similarity != "one":
            dS = step.mul_(-G if form.contrast else G)
            add_adjoint_of_v(form.similarity, dS, S, a, v, (dV.flatten(1)[p], dV.flatten(1)[q]))
        add_adjoint_of_u(G, factor, (dU.flatten(1)[p], dU.flatten(1)[q]))


def _load(x: Tensor, tile: Tile, form: Form) -> Tensor:
    """A tile with its border of neighbours, (C, images, rows + 2r, W + 2r), in a number type that bears differences."""
    r, source = form.radius, x[tile.images].transpose(0, 1)
    shape = (*source.shape[:2], tile.bottom - tile.top + 2 * r, source.shape[3] + 2 * r)
    band = torch.empty(shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    stencil.load_band(band, source, tile.top, r)
    return band


def _ends(offset: stencil.Offset, band: Tensor) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where p and q = p + offset are in a band flattened to (C, pixels): one shift serves all rows and images."""
    shift = offset[0] * band.shape[-1] + offset[1]
    return (slice(None), slice(band[0].numel() - shift)), (slice(None), slice(shift, None))


def _two_views(d: Tensor, offset: stencil.Offset, form: Form) -> tuple[Tensor, Tensor]:
    """What the taps o and −o see of d: d(p) and d(p − o)."""
    return stencil.view(d, (0, 0), form.radius), stencil.view(d, (-offset[0], -offset[1]), form.radius)


def _put(d: Tensor, D: Tensor, tap: int, opposite: int, offset: stencil.Offset, form: Form) -> None:
    here, there = _two_views(d, offset, form)
    D[:, tap] = here
    if D.dtype == d.dtype:
        torch.neg(there, out=D[:, opposite])
    else:
        D[:, opposite] = -there


def _blocks(U: Tensor, form: Form) -> Iterator[slice]:
    """Channels in blocks; all at once where S needs all of them, since it is then computed once."""
    channels = U.shape[0]
    size = max(1, BLOCK_ELEMENTS // U[0].numel()) if form.per_channel else channels
    for first in range(0, channels, size):
        yield slice(first, first + size)
