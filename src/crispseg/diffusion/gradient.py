"""Gradients of u, at the half-points between pixels and at the pixels; smoothing; the edge scale λ.

Not here: what a gradient does to the flow (``diffusivity``, ``tensors``).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil
from crispseg.diffusion.coupling import DOWN, RIGHT, between, first, second
from crispseg.stencil import Offset

QUANTILE_SAMPLES = 2**20
"""At most so many pixels, evenly spaced, for the quantile of λ: sorting a 4096² map costs more than a step."""


def squared_norm(u: Tensor, offset: Offset) -> Tensor:
    """‖∇u‖² at the half-points of ``offset`` (``RIGHT`` or ``DOWN``), summed over the channels: (B, 1, pairs).

    Along the pair the difference of its ends; across it the mean of the ends' central differences.
    """
    along = second(u, offset) - first(u, offset)
    across = between(_central(u, DOWN if offset == RIGHT else RIGHT), offset)
    return _channel_sum(along.square().add_(across.square()))


def squared_difference(u: Tensor, offset: Offset) -> Tensor:
    """(u_q − u_p)², summed over the channels: all that Perona and Malik's own scheme looks at."""
    return _channel_sum((second(u, offset) - first(u, offset)).square())


def squared_central_norm(u: Tensor) -> Tensor:
    """‖∇u‖² at the pixels from central differences, summed over the channels: (B, 1, H, W)."""
    return _channel_sum(_central(u, RIGHT).square() + _central(u, DOWN).square())


def scharr(u: Tensor) -> tuple[Tensor, Tensor]:
    """(∂u/∂x, ∂u/∂y) at the pixels, by the rotation-invariant filter [−1 0 1]/2 ⊗ [3 10 3]/16; the shape of ``u``.

    Source: Weickert and Scharr 2002, section 3. The border repeats.
    """
    padded = stencil.pad(u, 1)
    both = F.conv2d(padded.flatten(0, 1).unsqueeze(1), _scharr_kernels(u))
    return both[:, 0].reshape(u.shape), both[:, 1].reshape(u.shape)


def scharr_adjoint(jx: Tensor, jy: Tensor) -> Tensor:
    """The transpose of :func:`scharr`, border included: −div of the flux (jx, jy)."""
    flux = torch.stack([jx.flatten(0, 1), jy.flatten(0, 1)], dim=1)
    padded = F.conv_transpose2d(flux, _scharr_kernels(jx))
    height, width = jx.shape[-2:]
    return stencil.pad_adjoint(padded.reshape(*jx.shape[:2], height + 2, width + 2), 1)


def gaussian_blur(u: Tensor, sigma: float) -> Tensor:
    """u smoothed by a Gaussian of ``sigma`` pixels, cut at 4σ and normalised; 0 leaves u alone. The border repeats."""
    if sigma == 0:
        return u
    radius = max(1, math.ceil(4 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    taps = (taps / taps.sum()).to(u)
    maps = stencil.pad(u, radius).flatten(0, 1).unsqueeze(1)
    return F.conv2d(F.conv2d(maps, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1)).reshape(u.shape)


@torch.no_grad()
def edge_scale(u: Tensor, quantile: float = 0.9) -> Tensor:
    """λ from the data: the ``quantile`` of ‖∇u‖ over the pixels of each image, so that all steeper ones count as edges.

    Returns (B, 1, 1, 1), in units of u per pixel, positive also for a flat image; λ is a constant to autograd.

    Source: Perona and Malik 1990, section V-A, where it is Canny's noise estimate.

    >>> import torch
    >>> edge_scale(torch.arange(5.0).expand(1, 1, 4, 5)).item()
    1.0
    """
    norm = squared_central_norm(u).sqrt().flatten(1)
    norm = norm[:, :: math.ceil(norm.shape[1] / QUANTILE_SAMPLES)].float()
    scale = norm.quantile(quantile, dim=1).to(u.dtype).clamp(min=torch.finfo(u.dtype).tiny ** 0.5)
    return scale.view(-1, 1, 1, 1)


def _channel_sum(x: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else x.sum(1, keepdim=True)


def _central(u: Tensor, offset: Offset) -> Tensor:
    """(u_{p+e} − u_{p−e}) / 2, the border repeated."""
    dy, dx = offset
    return (stencil.shifted(u, offset) - stencil.shifted(u, (-dy, -dx))) / 2


def _scharr_kernels(like: Tensor) -> Tensor:
    difference, smoothing = like.new_tensor([-0.5, 0, 0.5]), like.new_tensor([3, 10, 3]) / 16
    return torch.stack([torch.outer(smoothing, difference), torch.outer(difference, smoothing)]).unsqueeze(1)
