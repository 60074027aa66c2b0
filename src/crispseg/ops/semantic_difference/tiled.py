"""The operator a chunk of channels and a tile of pixels at a time, with one matrix product over all taps.

The differences D (channels · taps, pixels) of a chunk and tile stay in the cache between the stage that writes them and
the product [C_out, channels · taps] · [channels · taps, pixels] that reads them; the whole D, eight times u for a 3×3
stencil, never exists, nor does a copy of W. Backward computes D again, so that nothing but u, v, W and λ is kept. The
products are those of a convolution without its middle tap.

    y = W · D,    ∂D = Wᵀ · ∂y,    ∂W = ∂y · Dᵀ,    and ∂D goes back to ∂u and ∂v pair by pair.

Not here: the stage itself, in ATen (``differences``) or compiled (``native``), and what is registered with autograd
(``registered``).
"""

import torch
from torch import Tensor

from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.differences import adjoint, differences
from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.guide import scale_adjoint
from crispseg.ops.semantic_difference.products import accumulation_type, product
from crispseg.ops.semantic_difference.tiles import Chunk, chunks, tiles


def forward(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """Return y (B, C_out, H, W) in the memory format of u."""
    y = empty_result(u, weight)
    if not form.half or not u.numel():
        return y.zero_()
    if form.native:
        native.forward(u, v, weight, scale, y, form)
        return y
    D = u.new_empty(0, dtype=accumulation_type(weight.dtype))
    for chunk in chunks(weight, form):
        inputs, fresh = _of_chunk(chunk, u, v, scale, form), chunk.channels.start == 0
        W = chunk.weight(weight, form).to(D.dtype)
        for tile in tiles(u, chunk, form):
            y_tile = tile.of(y[:, chunk.outputs])
            D.resize_((inputs[0].shape[1], 2 * len(form.half), *y_tile.shape[1:]))
            differences(*inputs, D, tile, form)
            term = product(W, D.view(W.shape[0], W.shape[2], -1)).view(y_tile.shape)
            y_tile.copy_(term) if fresh else y_tile.add_(term)
    return y


def backward(
    g: Tensor, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return ∂u, ∂v, ∂W and ∂λ for g = ∂loss/∂y."""
    du, dv = torch.zeros_like(u), torch.zeros_like(v)
    dweight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    any_work = form.half and u.numel()
    if any_work and form.native:
        native.backward(g, u, v, weight, scale, (du, dv, dweight), form)
    for chunk in chunks(weight, form) if any_work and not form.native else ():
        W = chunk.weight(weight, form).to(accumulation_type(weight.dtype))
        inputs = _of_chunk(chunk, u, v, scale, form)
        gradients = _of_chunk(chunk, du, dv, None, form)[:2]
        dW = W.new_zeros(W.shape, dtype=torch.promote_types(W.dtype, torch.float32))
        for tile in tiles(u, chunk, form):
            g_tile = tile.of(g[:, chunk.outputs])
            dy = W.new_empty(g_tile.shape).copy_(g_tile).view(*W.shape[:2], -1)
            D = product(W.mT, dy)  # ∂D; the stage then puts D in its place
            taps = D.view(inputs[0].shape[1], -1, *g_tile.shape[1:])
            adjoint(*inputs, taps, *gradients, tile, form)
            dW += product(dy, D.mT)
            del D, taps
        chunk.place(dW, dweight, form)
    return du, dv, dweight, None if scale is None else scale_adjoint(dv, v, form.similarity, scale)


def empty_result(u: Tensor, weight: Tensor) -> Tensor:
    """Room for y, in the memory format of u and the number type of W."""
    channels_last = u.is_contiguous(memory_format=torch.channels_last) and not u.is_contiguous()
    return torch.empty(
        (u.shape[0], weight.shape[0], *u.shape[2:]),
        dtype=weight.dtype,
        device=u.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _of_chunk(
    chunk: Chunk, u: Tensor, v: Tensor, scale: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The channels of a chunk; all of the guide where S needs them all."""
    if not form.per_channel:
        return u[:, chunk.inputs], v, scale
    if scale is not None and scale.numel() > 1:
        scale = scale[chunk.inputs]
    return u[:, chunk.inputs], v[:, chunk.inputs], scale
