"""The fused kernels called: ``forward`` and ``backward`` of the same shape as those of ``tiled``, for a CUDA device.

In Triton's interpreter (``TRITON_INTERPRET=1`` set before the first import of triton) they run on a CPU too, slowly.

Not here: the kernels (``triton_kernels``, imported on the first call, because importing crispseg must not load triton).
"""

from typing import Any

import torch
from torch import Tensor

from crispseg import stencil
from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.tiled import empty_result

PIXELS, CHANNELS, OUTPUTS = 64, 32, 64
"""Blocks of the kernels: what one program holds in registers; the products need 16 at least."""
SLICES = 8
"""Partial sums of ∂W, so that few channels still make many programs."""


def forward(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """Return y (B, C_out, H, W) in the memory format of u."""
    from crispseg.ops.semantic_difference.triton_kernels import forward_kernel

    y = empty_result(u, weight)
    if not y.numel():
        return y
    B, C, H, W = u.shape
    v, N = _prepared(v, scale), weight.shape[0]
    grid = (-(-H * W // PIXELS), -(-N // OUTPUTS), B)
    strides = *u.stride(), *v.stride(), *y.stride()
    forward_kernel[grid](u, v, _taps_first(weight), y, C, N, H, W, *strides, **_constants(weight, form))
    return y


def backward(
    g: Tensor, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return ∂u, ∂v, ∂W and ∂λ for g = ∂loss/∂y."""
    from crispseg.ops.semantic_difference.triton_kernels import maps_kernel, weight_kernel

    B, C, H, W = u.shape
    N, k, r = weight.shape[0], form.kernel_size, form.radius
    w = _prepared(v, scale)
    du = u.new_zeros((B, C, H + 2 * r, W + 2 * r), dtype=torch.float32)
    dw, dweight = torch.zeros_like(du), u.new_zeros((SLICES, k * k, N, C), dtype=torch.float32)
    if g.numel() and C:
        strides = *u.stride(), *w.stride(), *g.stride()
        constants = _constants(weight, form)
        grid = (-(-du[0, 0].numel() // PIXELS), -(-C // CHANNELS), B)
        maps_kernel[grid](u, w, _taps_first(weight), g, du, dw, C, N, H, W, *strides, **constants)
        grid = (-(-N // OUTPUTS), -(-C // CHANNELS), k * k * SLICES)
        weight_kernel[grid](u, w, g, dweight, C, N, B, H, W, SLICES, *strides, **constants)
    taps = dweight.sum(0)
    taps[k * k // 2] = 0
    dscale = None
    dw = stencil.pad_adjoint(dw, r) if r else dw
    if scale is not None:
        factor = _per_channel(scale).float().reciprocal()
        dw = dw * factor
        dscale = (-(dw * w).sum((0, 2, 3))).sum_to_size(scale.shape).to(scale.dtype)
    return (
        (stencil.pad_adjoint(du, r) if r else du).to(u.dtype),
        dw.to(v.dtype),
        taps.permute(1, 2, 0).reshape(weight.shape).to(weight.dtype),
        dscale,
    )


def serves(u: Tensor, form: Form) -> bool:
    """Whether the kernels have this form: no float64, no groups, no similarity that needs all channels at once."""
    simple = form.similarity in ("charbonnier", "one") and form.groups == 1
    return simple and u.dtype in (torch.float32, torch.bfloat16, torch.float16)


def _prepared(v: Tensor, scale: Tensor | None) -> Tensor:
    """v / λ; float32 where there is a λ, so that differences are."""
    return v if scale is None else v.float() / _per_channel(scale).float()


def _per_channel(scale: Tensor) -> Tensor:
    return scale.detach().reshape(1, -1, 1, 1)


def _taps_first(weight: Tensor) -> Tensor:
    return weight.flatten(2).permute(2, 0, 1).contiguous()


def _constants(weight: Tensor, form: Form) -> dict[str, Any]:
    exact = weight.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
    return {
        "K": form.kernel_size,
        "DILATION": form.dilation,
        "ONE": form.similarity == "one",
        "CONTRAST": form.contrast,
        "PRECISION": "ieee" if exact else "tf32",
        "BP": PIXELS,
        "BC": CHANNELS,
        "BO": OUTPUTS,
        "num_stages": 1 if exact else 3,  # exact float32 products stage so much that more does not fit
    }
