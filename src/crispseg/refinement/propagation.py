"""How evidence moves between pixels: classes weighed by the local look of things, S of a learned guide. Class-agnostic.

    p_k(i) ∝ π_k(i)^β · L_k(i)^γ,     L_k(i) = (Σ_j S(v_i, v_j) p_k(j) + ε s̄) / (Σ_j p_k(j) + ε)

L_k is how much a pixel looks like what is called k around it: with one class left out of the denominator it is a step
of semantic diffusion, p_i + Σ_j S_ij (p_j − p_i) / Σ_j S_ij. With it, a class of few pixels counts as much as a large
one, so that a pole that is blurred into the sky can win back its own pixels. j runs over (2r + 1)² taps ``dilation``
apart, borders repeated; s̄ is the mean of S over them, what a class that is not there gets. π is the prior, what the
coarse mask says of this very place; β and γ come from the network, pixel by pixel. No weight depends on a class.

Not here: the network that sees picture and mask (``network``), files, the refiner's interface (``learned``).
"""

import torch
from torch import Tensor

from crispseg import stencil
from crispseg.similarity import gaussian

FLOOR = 1e-4
"""The least probability of a prior: its logarithm stays finite."""


def step(
    p: Tensor, prior: Tensor, v: Tensor, beta: Tensor, gamma: Tensor, epsilon: Tensor, *, radius: int, dilation: int
) -> Tensor:
    """Return the next p (B, K, H, W) of p, π (B, K, H, W), v (B, D, H, W), β and γ (B, 1, H, W), ε ()."""
    reach = radius * dilation
    p_far, v_far = stencil.pad(p, reach), stencil.pad(v, reach)
    scale = v.shape[1] ** -0.5  # S = exp(−‖Δv‖² / 2)
    alike, there, total = torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(beta)
    taps = stencil.offsets(2 * radius + 1, dilation)
    for offset in taps:
        q = stencil.view(p_far, offset, reach)
        S = gaussian(v, stencil.view(v_far, offset, reach), scale)
        alike, there, total = alike + S * q, there + q, total + S
    return posterior(alike, there, total / len(taps), prior, beta, gamma, epsilon, dim=1)


def posterior(
    alike: Tensor, there: Tensor, mean: Tensor, prior: Tensor, beta: Tensor, gamma: Tensor, epsilon: Tensor, *, dim: int
) -> Tensor:
    """π^β L^γ, normalised over the classes, which lie along ``dim``."""
    L = (alike + epsilon * mean + 1e-6) / (there + epsilon + 1e-6)
    return (beta * (prior + FLOOR).log() + gamma * L.log()).softmax(dim)


def step_at(
    pixels: Tensor,
    p: Tensor,
    prior: Tensor,
    v: Tensor,
    beta: Tensor,
    gamma: Tensor,
    epsilon: Tensor,
    *,
    size: tuple[int, int],
    radius: int,
    dilation: int,
) -> Tensor:
    """Return :func:`step` at some pixels of one map alone: (n, K) for ``pixels`` (n,), row by row of the map.

    Maps are rows of pixels here: p (H · W, K), v (H · W, D), and of the pixels asked for π (n, K), β and γ (n, 1).
    """
    height, width = size
    y, x = pixels // width, pixels % width
    taps = stencil.offsets(2 * radius + 1, dilation)
    at = torch.stack([(y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in taps], 1)
    S = torch.stack([(-(v[j] - v[pixels]).square().sum(1) / 2).exp() for j in at.unbind(1)], 1)
    alike = torch.nn.functional.embedding_bag(at, p, per_sample_weights=S, mode="sum")
    there = torch.nn.functional.embedding_bag(at, p, mode="sum")
    return posterior(alike, there, S.mean(1, keepdim=True), prior, beta, gamma, epsilon, dim=1)
