"""How evidence moves between pixels: classes weighed by the local look of things, S of a learned guide. Class-agnostic.

    p_k(i) ∝ π_k(i)^β · L_k(i)^γ,     L_k(i) = (Σ_j S(v_i, v_j) p_k(j) + ε s̄) / (Σ_j p_k(j) + ε)

L_k is how much a pixel looks like what is called k around it: with one class left out of the denominator it is a step
of semantic diffusion, p_i + Σ_j S_ij (p_j − p_i) / Σ_j S_ij. With it, a class of few pixels counts as much as a large
one, so that a pole that is blurred into the sky can win back its own pixels. j runs over (2r + 1)² taps ``dilation``
apart, borders repeated; s̄ is the mean of S over them, what a class that is not there gets. π is the prior, what the
coarse mask says of this very place; β and γ come from the network, pixel by pixel. No weight depends on a class.

Not here: the network that sees picture and mask (``network``), files, the refiner's interface (``learned``).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil

FLOOR = 1e-4
"""The least probability of a prior: its logarithm stays finite."""


class Reach(NamedTuple):
    """The taps of a step: (2 · radius + 1)² of them, ``dilation`` px apart."""

    radius: int
    dilation: int


class Trust(NamedTuple):
    """β and γ, a number a pixel, and ε ()."""

    beta: Tensor
    gamma: Tensor
    epsilon: Tensor


def step(p: Tensor, log_prior: Tensor, v: Tensor, trust: Trust, reach: Reach) -> Tensor:
    """Return the next p (B, K, H, W) of p, log π (B, K, H, W) and v (B, D, H, W); β and γ are (B, 1, H, W)."""
    far = reach.radius * reach.dilation
    p_far, v_far = stencil.pad(p, far), stencil.pad(v, far)
    alike, total, taps = p.clone(), torch.ones_like(trust.beta), (2 * reach.radius + 1) ** 2  # S to itself is 1
    for offset in stencil.half_offsets(2 * reach.radius + 1, reach.dilation):
        for to, S in _both_ways(v_far, offset, far):
            alike.addcmul_(S, stencil.view(p_far, to, far))
            total += S
    return _posterior(alike, _sum(p_far, reach), total / taps, log_prior, trust)


def _both_ways(v_far: Tensor, offset: stencil.Offset, far: int) -> Iterator[tuple[stencil.Offset, Tensor]]:
    """An offset and its negative, each with S between every pixel and its neighbour there, (B, 1, H, W).

    S is symmetric: that of a pixel and its neighbour is that of the neighbour and the pixel.
    """
    dy, dx = offset
    height, width = (n - 2 * far for n in v_far.shape[-2:])
    top, left = far - dy, far - max(dx, 0)
    one = v_far[..., top : far + height, left : far + width + max(-dx, 0)]
    other = v_far[..., far : far + height + dy, left + dx : far + width + max(dx, 0)]
    S = ((one - other).square().sum(1, keepdim=True) / -2).exp()
    yield offset, S[..., dy:, max(dx, 0) : max(dx, 0) + width]
    yield (-dy, -dx), S[..., :height, max(-dx, 0) : max(-dx, 0) + width]


def _sum(p_far: Tensor, reach: Reach) -> Tensor:
    """Σ_j p(j) over the taps, along each axis in turn."""
    total = p_far
    for dim in (-2, -1):
        length = p_far.shape[dim] - 2 * reach.radius * reach.dilation
        parts = [total.narrow(dim, i * reach.dilation, length) for i in range(2 * reach.radius + 1)]
        total = parts[0] + parts[1]
        for part in parts[2:]:
            total = total + part
    return total


def step_at(mine: Tensor, at: Tensor, p: Tensor, log_prior: Tensor, v: Tensor, trust: Trust) -> Tensor:
    """Return :func:`step` at n pixels alone, (n, K).

    Maps are rows here, one a pixel, in any order: p (m, K), v (m, D). ``mine`` (n,): the rows of the n pixels; ``at``
    (taps, n): those of their neighbours. log π is (n, K); β and γ are (n, 1).
    """
    own = v.index_select(0, mine)
    S = torch.stack([(v.index_select(0, j).sub_(own).square_().sum(1) / -2).exp_() for j in at.unbind()], 1)
    at = at.t().contiguous()
    alike, there = F.embedding_bag(at, p, per_sample_weights=S, mode="sum"), F.embedding_bag(at, p, mode="sum")
    return _posterior(alike, there, S.mean(1, keepdim=True), log_prior, trust)


def neighbours(pixels: Tensor, reach: Reach, size: tuple[int, int]) -> Tensor:
    """The pixels that a step at ``pixels`` (n,) looks at, (taps, n); both are numbered row by row of the map."""
    height, width = size
    y, x = pixels // width, pixels % width
    taps = stencil.offsets(2 * reach.radius + 1, reach.dilation)
    return torch.stack([(y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in taps])


def _posterior(alike: Tensor, there: Tensor, mean: Tensor, log_prior: Tensor, trust: Trust) -> Tensor:
    """π^β L^γ, normalised over the classes, which lie along the second dimension."""
    L = (alike + (trust.epsilon * mean + 1e-6)) / (there + (trust.epsilon + 1e-6))
    return (trust.beta * log_prior + trust.gamma * L.log()).softmax(1)
