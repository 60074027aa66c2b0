"""S ≡ 1: the operator is a convolution, on every device and in every number type.

    y = conv(replicate-pad(u), W′),   W′_q = W_q,   W′_0 = −Σ_{q≠0} W_q

Σ_q W_q (u_q − u_p) has −Σ_{q≠0} W_q as the factor of u_p, whatever W_0 is; so ∂W_q = ∂W′_q − ∂W′_0, and ∂W_0 = 0.

Written out in plain operators, which are exported, compiled and differentiated as often as one likes; and, for eager
training, with a backward pass of its own.

Source: central-difference convolution with θ = 1 (Yu et al., CVPR 2020).
Not here: other similarities.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil
from crispseg.ops.semantic_difference import derivative


def semantic_difference(u: Tensor, weight: Tensor, *, dilation: int, groups: int, plain: bool) -> Tensor:
    """Return y (B, C_out, H, W); arguments as checked by ``api``. ``plain``: in plain operators."""
    if plain or torch.compiler.is_compiling() or derivative.transformed():
        return convolution(u, weight, dilation, groups)
    return _Convolution.apply(u, weight, dilation, groups)


def convolution(u: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
    """The formula at this file's head, in plain operators."""
    padded = stencil.pad(u, weight.shape[-1] // 2 * dilation)
    return F.conv2d(padded, zero_sum(weight), dilation=dilation, groups=groups)


def zero_sum(weight: Tensor) -> Tensor:
    """Return W′ (…, k, k), kernels that sum to zero: W with −Σ_{q≠0} W_q in the centre. W_0 plays no part.

    >>> zero_sum(torch.ones(1, 1, 3, 3))[0, 0].tolist()
    [[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]
    """
    k = weight.shape[-1]
    taps = weight.flatten(-2)
    before, after = taps[..., : k * k // 2], taps[..., k * k // 2 + 1 :]
    centre = -torch.cat([before, after], dim=-1).sum(-1, keepdim=True)
    return torch.cat([before, centre, after], dim=-1).unflatten(-1, (k, k))


class _Convolution(torch.autograd.Function):
    """The same with one copy of u for its border, instead of the dozen that autograd would make there and back."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, dilation: int, groups: int) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):  # it would pad in float32 on a CPU
            # Its own backward pass, on which inductor breaks and which uses atomics on a GPU, is never asked for.
            padded = F.pad(u, [weight.shape[-1] // 2 * dilation] * 4, mode="replicate")
            kernels = _held(weight, u)
        ctx.save_for_backward(u, weight, padded, kernels)
        ctx.form = dilation, groups
        return F.conv2d(padded, kernels, dilation=dilation, groups=groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, *maps = ctx.saved_tensors
        dilation, groups = ctx.form
        of_u, of_weight = needed = ctx.needs_input_grad[:2]
        if derivative.needed_again(g, u, weight):
            plain = partial(convolution, dilation=dilation, groups=groups)
            found = derivative.gradients(plain, (u, weight), needed, g)
            return *found, None, None
        form = None, [1, 1], [0, 0], [dilation] * 2, False, [0, 0], groups
        du, dweight, _ = torch.ops.aten.convolution_backward(g, *maps, *form, [of_u, of_weight, False])
        centre = weight.shape[-1] // 2
        if of_u:
            du = stencil.pad_adjoint_(du, centre * dilation)
        if of_weight:
            dweight.sub_(dweight.narrow(-2, centre, 1).narrow(-1, centre, 1).clone())
        return du, dweight, None, None


def _held(weight: Tensor, u: Tensor) -> Tensor:
    """W′ as in :func:`zero_sum`, in the memory format of u, which the convolution then gives to y."""
    last = u.is_contiguous(memory_format=torch.channels_last) and not u.is_contiguous()
    kernels = weight.clone(memory_format=torch.channels_last if last else torch.contiguous_format)
    middle = kernels[..., weight.shape[-1] // 2, weight.shape[-1] // 2]
    middle.zero_()
    middle.copy_(-kernels.sum((-2, -1)))
    return kernels
