"""The operators that ``benchmarks.operator`` times ours against, each written from its formula. All map (u, v, W) to y.

Each is written as somebody who knows PyTorch would write it: no copies that the formula does not need. In particular
``W @ D`` with D (B, 9C, H·W) copies all of D where B > 1, and its gradient twice; ``torch.bmm`` does not.

Not here: how they are timed.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from crispseg import semantic_difference

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]


def convolution(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """The mark: ``F.conv2d`` of the same shape."""
    return F.conv2d(u, weight, padding=weight.shape[-1] // 2)


def ours(impl: str) -> Operator:
    """Semantic difference, charbonnier, by one implementation."""
    return lambda u, v, weight: semantic_difference(u, v, weight, impl=impl)


def one(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Semantic difference with S ≡ 1: central-difference convolution as one convolution."""
    return semantic_difference(u, v, weight, similarity="one")


def central_difference(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Central-difference convolution, θ = 1: conv(u, W) − (Σ_taps W) · u (Yu et al. 2020), by one convolution."""
    centre = F.pad(weight.sum((2, 3), keepdim=True), [weight.shape[-1] // 2] * 4)
    return convolution(u, v, weight - centre)


def unfold(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Semantic difference as re-implementations have it: every neighbour of u and of v unfolded, then one product."""
    B, C, H, W = u.shape
    k = weight.shape[-1]
    u_q = F.unfold(F.pad(u, [k // 2] * 4, mode="replicate"), k).view(B, C, k * k, H * W)
    v_q = F.unfold(F.pad(v, [k // 2] * 4, mode="replicate"), k).view(B, C, k * k, H * W)
    step = v_q - v.view(B, C, 1, H * W)
    differences = torch.rsqrt(1 + step * step) * (u_q - u.view(B, C, 1, H * W))  # step ** 2 copies in its gradient
    return _taps(weight, differences).view(B, -1, H, W)


def pixel_adaptive(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Pixel-adaptive convolution: Σ_q W_{q−p} exp(−‖v_p − v_q‖² / 2) u_q (Su et al. 2019), by unfolding."""
    B, C, H, W = u.shape
    k = weight.shape[-1]
    u_q = F.unfold(u, k, padding=k // 2).view(B, C, k * k, H * W)
    v_q = F.unfold(v, k, padding=k // 2).view(B, C, k * k, H * W)
    step = v_q - v.view(B, C, 1, H * W)
    kernel = torch.exp((step * step).sum(1, keepdim=True) / -2)
    return _taps(weight, kernel * u_q).view(B, -1, H, W)


def _taps(weight: Tensor, columns: Tensor) -> Tensor:
    """Σ over channels and taps: W (C_out, C, k, k) times columns (B, C, k², H·W), an image at a time."""
    W = weight.flatten(1)
    return torch.bmm(W.expand(len(columns), *W.shape), columns.flatten(1, 2))


def deformable(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Deformable convolution of torchvision; its 2k² offsets are the first channels of the guide."""
    taps = 2 * weight.shape[-1] ** 2
    return deform_conv2d(u, v[:, :taps], weight, padding=weight.shape[-1] // 2)


OPERATORS: dict[str, Operator] = {
    "conv2d": convolution,
    "auto": ours("auto"),
    "tiled": ours("tiled"),
    "reference": ours("reference"),
    "S = 1": one,
    "central difference": central_difference,
    "unfold": unfold,
    "pixel adaptive": pixel_adaptive,
    "deformable": deformable,
}
