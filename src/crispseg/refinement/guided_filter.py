"""The guided filter with a colour guide: each score a local linear function of the image. Linear in the pixels.

Not here: other filters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from crispseg.limits import check


@dataclass(frozen=True, kw_only=True)
class GuidedFilter:
    """Guided filter: in a window ω_k the answer is a linear function of the colour, fitted to the scores p.

        a_k = (Σ_k + ε U)⁻¹ (mean_ω(I p) − μ_k mean_ω(p)),   b_k = mean_ω(p) − a_kᵀ μ_k
        q_i = mean_ω(a)ᵀ I_i + mean_ω(b)

    μ_k, Σ_k: mean and covariance of the colours in the window, which ends at the image's border. Class by class; the
    scores of a pixel still add up to 1, single ones may leave [0, 1].

    Args:
        radius: Of the windows, (2 · radius + 1)² pixels.
        epsilon: ε: colour variance, for colours in [0, 1], below which a window counts as flat and is smoothed.

    Source: He, Sun, Tang: Guided Image Filtering, ECCV 2010, equations 11 and following of the colour case.
    """

    radius: int = 8
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check(self, "guided.")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return q (K, H, W) of scores p (K, H, W) and an image (3, H, W) in [0, 1]."""
        guide, r = image.double(), self.radius
        mean = box_mean(guide, r)
        inverse = _inverse(guide, mean, r, self.epsilon)
        refined = torch.empty_like(p)
        for out, one in zip(refined, p, strict=True):  # class by class: the memory of one
            score = one.double()
            mean_score = box_mean(score, r)
            covariance = box_mean(guide * score, r) - mean * mean_score
            a = torch.stack([(row * covariance).sum(0) for row in inverse])
            b = mean_score - (a * mean).sum(0)
            out.copy_((box_mean(a, r) * guide).sum(0) + box_mean(b, r))
        return refined


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the (2r + 1)² window around each pixel of x (…, H, W), of what of it lies on the map.

    >>> box_mean(torch.tensor([[0.0, 3.0, 6.0]]), 1)
    tensor([[1.5000, 3.0000, 4.5000]])
    """
    for dim in (-2, -1):
        n = x.shape[dim]
        r = min(radius, n - 1)
        total = x.cumsum(dim)
        after = total.narrow(dim, n - 1, 1).repeat_interleave(r, dim)
        x = torch.cat([total.narrow(dim, r, n - r), after], dim)  # the sum up to r pixels on
        x.narrow(dim, r + 1, n - r - 1).sub_(total.narrow(dim, 0, n - r - 1))
        at = torch.arange(n, device=x.device)
        counts = (at + r).clamp(max=n - 1) - (at - r).clamp(min=0) + 1
        x.div_(counts.to(x.dtype).view(-1, *[1] * (-1 - dim)))
    return x


def _inverse(guide: Tensor, mean: Tensor, radius: int, epsilon: float) -> list[Tensor]:
    """The rows of (Σ_k + ε U)⁻¹, (3, H, W) each, by cofactors: the matrix is symmetric and positive definite."""

    def covariance(i: int, j: int) -> Tensor:
        return box_mean(guide[i] * guide[j], radius) - mean[i] * mean[j]

    xx, yy, zz = (covariance(i, i) + epsilon for i in range(3))
    xy, xz, yz = covariance(0, 1), covariance(0, 2), covariance(1, 2)
    cofactors = [
        [yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy],
        [xz * yz - xy * zz, xx * zz - xz * xz, xy * xz - xx * yz],
        [xy * yz - xz * yy, xy * xz - xx * yz, xx * yy - xy * xy],
    ]
    determinant = xx * cofactors[0][0] + xy * cofactors[0][1] + xz * cofactors[0][2]
    return [torch.stack(row) / determinant for row in cofactors]
