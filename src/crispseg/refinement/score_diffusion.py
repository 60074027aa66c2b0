"""Semantic diffusion of the class scores themselves, with the image as the guide: METHOD.md's PDE as a post-process.

Not here: the PDE and its solver (``crispseg.diffusion``).
"""

from dataclasses import dataclass

from torch import Tensor

from crispseg.diffusion import Semantic, solve
from crispseg.limits import check


@dataclass(frozen=True, kw_only=True)
class ScoreDiffusion:
    """Explicit steps of ∂p/∂t = div(S(∇I) ∇p): scores flow inside what the image shows as one piece.

        p_i ← p_i + τ Σ_{j∈N(i)} S(I_i, I_j) (p_j − p_i),   S = exp(−‖I_i − I_j‖² / (2 λ² · 3))

    N: the 4 neighbours. Probabilities stay probabilities: no value leaves the range of p, and the sum of a pixel stays.

    Args:
        steps: Number of steps.
        step: τ, at most 1/4.
        scale: λ, for colours in [0, 1]: larger differences stop the flow. Null: the 0.9 quantile of the image's ‖∇I‖.

    Source: SDN, arXiv 2302.02057, section 3, of scores instead of features; λ: Perona, Malik, PAMI 1990, section V-A.
    """

    steps: int = 20
    step: float = 0.25
    scale: float | None = None

    def __post_init__(self) -> None:
        check(self, "diffusion.")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return the diffused p (K, H, W), the guide an image (3, H, W) in [0, 1]."""
        D = Semantic("gaussian", self.scale)
        time = self.steps * self.step
        return solve(p[None], D, time=time, step=self.step, solver="explicit", guide=image[None])[0]
