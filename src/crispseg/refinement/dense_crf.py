"""Fully connected CRF with Gaussian edge potentials, solved by mean field.

Not here: the high-dimensional Gaussian filter (``permutohedral``).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.limits import check
from crispseg.refinement.permutohedral import lattice
from crispseg.refinement.points import Array

LEAST_PROBABILITY = 1e-10
CUT = 4
"""The smoothness kernel ends at so many deviations, where it is 3e-4."""


@dataclass(frozen=True, kw_only=True)
class DenseCRF:
    """Dense CRF: a pixel's class depends on all others, on the near and alike ones most.

        Q_i(l) ∝ p_i(l) · exp(w₁ Σ_j k̂₁(i, j) Q_j(l) + w₂ Σ_j k̂₂(i, j) Q_j(l)),   Q = p at the start
        k₁ = exp(−‖x_i − x_j‖² / 2θ_α² − ‖I_i − I_j‖² / 2θ_β²),   k₂ = exp(−‖x_i − x_j‖² / 2θ_γ²)
        k̂(i, j) = k(i, j) / √(n_i n_j),   n_i = Σ_j k(i, j)

    Mean field with Potts compatibility. As in the authors' code kernels are normalised symmetrically and j runs over i
    too. k₁ is filtered on the permutohedral lattice, an approximation; k₂ exactly, cut at 4 deviations. On the CPU.

    Args:
        iterations: Rounds of mean field.
        appearance: w₁.
        theta_alpha: θ_α in pixels.
        theta_beta: θ_β in grey levels of 255.
        smoothness: w₂.
        theta_gamma: θ_γ in pixels.

    Source: Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NeurIPS 2011,
    equations 2 and 3, algorithm 1; normalisation: the same, Parameter Learning and Convergent Inference, ICML 2013. The
    defaults are those of the authors' example.
    """

    iterations: int = 5
    appearance: float = 10.0
    theta_alpha: float = 80.0
    theta_beta: float = 13.0
    smoothness: float = 3.0
    theta_gamma: float = 3.0

    def __post_init__(self) -> None:
        check(self, "crf.")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return Q (K, H, W) of probabilities p (K, H, W) and an image (3, H, W) in [0, 1]."""
        k, height, width = p.shape
        flat: Array = p.cpu().numpy().reshape(k, -1).T
        near = lattice(_features(image, self.theta_alpha, self.theta_beta))
        scale = 1 / np.sqrt(near(np.ones((len(flat), 1), np.float32)))
        spread = torch.rsqrt(_blur(torch.ones(1, height, width), self.theta_gamma))
        unary = np.log(np.maximum(flat, LEAST_PROBABILITY))
        q = np.ascontiguousarray(flat)
        for _ in range(self.iterations):
            appearance = scale * near(scale * q)
            maps = torch.from_numpy(np.ascontiguousarray(q.T)).view(k, height, width)
            smooth = (spread * _blur(spread * maps, self.theta_gamma)).view(k, -1).numpy().T
            energy = unary + self.appearance * appearance + self.smoothness * smooth
            q = np.exp(energy - energy.max(1, keepdims=True))
            q /= q.sum(1, keepdims=True)
        return torch.from_numpy(np.ascontiguousarray(q.T)).view(k, height, width).to(p.device)


def _features(image: Tensor, theta_alpha: float, theta_beta: float) -> Array:
    """(y, x, r, g, b) of every pixel, in standard deviations: (N, 5)."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y, x]).float() / theta_alpha
    features: Array = torch.cat([place, image.cpu() * (255 / theta_beta)]).reshape(5, -1).T.numpy()
    return features


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Σ_j exp(−‖x_i − x_j‖² / 2σ²) v_j over the pixels of each map (C, H, W), not normalised."""
    radius = max(1, math.ceil(CUT * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2).to(x)
    maps = x[:, None]
    down = F.conv2d(maps, taps.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(down, taps.view(1, 1, 1, -1), padding=(0, radius))[:, 0]
