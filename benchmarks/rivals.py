"""The operators that ``benchmarks.operator`` times ours against, each written from its formula. All map (u, v, W) to y.

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
    """The same as it is published, θ = 1: conv(u, W) − (Σ_taps W) · u (Yu et al. 2020)."""
    return convolution(u, v, weight) - F.conv2d(u, weight.sum((2, 3), keepdim=True))


def unfold(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Semantic difference as re-implementations have it: every neighbour of u and of v unfolded, then one product."""
    B, C, H, W = u.shape
    k = weight.shape[-1]
    u_q = F.unfold(F.pad(u, [k // 2] * 4, mode="replicate"), k).view(B, C, k * k, H * W)
    v_q = F.unfold(F.pad(v, [k // 2] * 4, mode="replicate"), k).view(B, C, k * k, H * W)
    S = torch.rsqrt(1 + (v_q - v.view(B, C, 1, H * W)) ** 2)
    differences = S * (u_q - u.view(B, C, 1, H * W))
    return (weight.flatten(1) @ differences.view(B, C * k * k, H * W)).view(B, -1, H, W)


def pixel_adaptive(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Pixel-adaptive convolution: Σ_q W_{q−p} exp(−‖v_p − v_q‖² / 2) u_q (Su et al. 2019), by unfolding."""
    B, C, H, W = u.shape
    k = weight.shape[-1]
    u_q = F.unfold(u, k, padding=k // 2).view(B, C, k * k, H * W)
    v_q = F.unfold(v, k, padding=k // 2).view(B, C, k * k, H * W)
    kernel = torch.exp(-((v_q - v.view(B, C, 1, H * W)) ** 2).sum(1, keepdim=True) / 2)
    return (weight.flatten(1) @ (kernel * u_q).view(B, C * k * k, H * W)).view(B, -1, H, W)


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
