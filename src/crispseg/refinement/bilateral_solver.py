"""The fast bilateral solver: scores that are smooth where the image is, solved on a simplified bilateral grid.

Not here: other solvers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg
from torch import Tensor

from crispseg.limits import check
from crispseg.refinement.points import Array, find, frame

YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
BALANCED = 1e-6
MOST_ROUNDS = 200
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class BilateralSolver:
    """Fast bilateral solver: the scores x nearest to p among those that change little between alike pixels.

        min_x  λ/2 Σ_ij Ŵ_ij (x_i − x_j)² + Σ_i (x_i − p_i)²,   x constant in each cell of the grid

    Ŵ: the bistochastic form of a bilateral affinity in (x, y, luma, two chromas): pixels are put into cells of one
    deviation, and cells blurred by [1 2 1] along each axis. Class by class; every pixel's p has the same confidence.
    The authors' domain transform afterwards is left out.

    Args:
        smoothness: λ.
        sigma_spatial: Cell size in pixels.
        sigma_luma: Cell size in grey levels of 255.
        sigma_chroma: The same, of U and V.

    Source: Barron, Poole: The Fast Bilateral Solver, ECCV 2016, equations 1 to 8 and algorithm 1. The defaults are
    those of the authors' example.
    """

    smoothness: float = 128.0
    sigma_spatial: float = 8.0
    sigma_luma: float = 4.0
    sigma_chroma: float = 4.0

    def __post_init__(self) -> None:
        check(self, "bilateral.")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return x (K, H, W) of scores p (K, H, W) and an image (3, H, W) in [0, 1]."""
        cell, blur = grid(image, self.sigma_spatial, self.sigma_luma, self.sigma_chroma)
        k, pixels = len(p), len(cell)
        mass = np.bincount(cell).astype(np.float64)
        n, m = balanced(blur, mass)
        A = (self.smoothness * (diags(m) - diags(n) @ blur @ diags(n)) + diags(mass)).tocsr()
        precondition = diags(1 / A.diagonal())
        scores = p.cpu().numpy().reshape(k, pixels).astype(np.float64)
        refined = np.empty((k, pixels), np.float32)
        for out, score in zip(refined, scores, strict=True):
            b = np.bincount(cell, score, len(mass))
            y, failed = cg(A, b, x0=b / mass, rtol=TOLERANCE, atol=0, M=precondition)
            if failed:
                raise FloatingPointError(f"conjugate gradients did not converge in {failed} iterations")
            out[:] = y[cell]
        return torch.from_numpy(refined).view_as(p).to(p.device)


def grid(image: Tensor, spatial: float, luma: float, chroma: float) -> tuple[Array, csr_matrix]:
    """Return the cell of every pixel (N,), and the blur between the cells: 2 a cell and axis, 1 to each neighbour."""
    height, width = image.shape[1:]
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    yuv = YUV @ (255 * image.cpu().numpy().reshape(3, -1).astype(np.float64))
    sizes = np.array([spatial, spatial, luma, chroma, chroma])
    points = np.floor(np.concatenate([[y.ravel(), x.ravel()], yuv]).T / sizes)
    box = frame(points.min(0) - 1, points.max(0) + 1)
    cells, cell = np.unique(box.pack(points), return_inverse=True)
    blur = 2 * len(sizes) * identity(len(cells), format="csr")
    for stride in box.strides:
        after = find(cells, cells + stride)
        (there,) = np.nonzero(after < len(cells))
        pairs = csr_matrix((np.ones(len(there)), (there, after[there])), shape=blur.shape)
        blur = blur + pairs + pairs.T
    return cell.reshape(-1), blur


def balanced(blur: csr_matrix, mass: Array) -> tuple[Array, Array]:
    """Return n and m with n ∘ (B n) = m = mass, nearly: what makes the affinity bistochastic. Algorithm 1."""
    n = np.ones_like(mass)
    for _ in range(MOST_ROUNDS):
        before, n = n, np.sqrt(n * mass / (blur @ n))
        if np.abs(n / before - 1).max() < BALANCED:
            break
    return n, n * (blur @ n)
