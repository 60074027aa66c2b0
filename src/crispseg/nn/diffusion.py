"""``DiffusionSteps``: the iterative semantic solver in the operator's place, unrolled. What SDN replaces, as a control.

Not here: the solver itself (``crispseg.diffusion``).
"""

from torch import Tensor, nn

from crispseg.diffusion import Semantic
from crispseg.diffusion.schemes import explicit_step
from crispseg.nn.options import check_values, whole
from crispseg.nn.sdc import resize
from crispseg.similarity import PER_CHANNEL, SimilarityName


class DiffusionSteps(nn.Module):
    """k explicit steps of semantic diffusion of u, guided by v: the response is what they change, y = u^k − u.

        u^{t+1}_p = u^t_p + τ Σ_{q∈N(p)} S(v_p, v_q) (u^t_q − u^t_p)

    No weights but a guide projection. Every step stays in memory for the backward pass.

    Parameters
    ----------
    channels, guide_channels
        Of u and of v; v is resized bilinearly, and projected where S compares channel by channel.
    steps, step
        k ≥ 1 and τ in (0, 1/4], the bound of the explicit scheme.
    similarity, scale, contrast
        As in :class:`crispseg.diffusion.Semantic`; λ is fixed.

    Raises
    ------
    ValueError
        Steps, τ, λ or channels out of range; an unknown similarity.

    References
    ----------
    SDN, arXiv 2302.02057, section 3: the iteration before it is replaced by one learnable step.

    Examples
    --------
    >>> import torch
    >>> DiffusionSteps(16, 24, steps=4)(torch.rand(1, 16, 12, 12), torch.rand(1, 24, 6, 6)).shape
    torch.Size([1, 16, 12, 12])
    """

    def __init__(
        self,
        channels: int,
        guide_channels: int,
        *,
        steps: int = 4,
        step: float = 0.25,
        similarity: SimilarityName = "charbonnier",
        scale: float = 1.0,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        whole("steps", steps)
        if not isinstance(step, int | float) or not 0 < step <= 0.25:
            raise ValueError(f"step must be a number in (0, 0.25], found {step!r}")
        check_values(channels, channels, similarity=similarity, scale=scale, contrast=contrast)
        if not isinstance(scale, int | float):
            raise ValueError(f"the diffusion control has a fixed scale, a positive number, found {scale!r}")
        whole("guide_channels", guide_channels)
        self.D = Semantic(similarity, scale, contrast)
        self.steps, self.step = steps, step
        project = similarity in PER_CHANNEL and guide_channels != channels
        self.guide_projection = nn.Conv2d(guide_channels, channels, 1, bias=False) if project else nn.Identity()

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Return y (B, C, H, W) for u (B, C, H, W) and v (B, D, any, any)."""
        L, start = self.D.operator(u, resize(self.guide_projection(v), u)), u
        for _ in range(self.steps):
            u = explicit_step(u, L, self.step)
        return u - start
