"""The guide made ready for comparison once, not at every pair of pixels: divided by λ, or of unit length.

    charbonnier, gaussian   w = v / λ           ∂v = ∂w / λ,                   ∂λ = −Σ_p ∂v ⊙ v / λ
    cosine                  w = v / ‖v‖         ∂v = (∂w − w ⟨w, ∂w⟩) / ‖v‖    (0 where v = 0)

Not here: the comparison itself (``pairs``).
"""

import torch
from torch import Tensor

from crispseg.similarity import SCALED, SimilarityName


def prepare(v: Tensor, similarity: SimilarityName, scale: Tensor | None) -> Tensor | None:
    """Prepare v (D, pixels) in place; return the factor: 1 / λ (D, 1), 1 / ‖v‖ (1, pixels), or None for 1."""
    if similarity == "cosine":
        squared = (v * v).sum(0, keepdim=True)
        factor = torch.where(squared > 0, squared, torch.inf).rsqrt_()
    elif scale is None:
        return None
    else:
        factor = scale.detach().to(v.dtype).reshape(-1, 1).reciprocal()
    v.mul_(factor)
    return factor


def prepare_adjoint(dw: Tensor, w: Tensor, similarity: SimilarityName, factor: Tensor | None) -> None:
    """Turn ∂loss/∂w (D, pixels) into ∂loss/∂v, in place."""
    if similarity == "cosine":
        dw.addcmul_(w, (w * dw).sum(0, keepdim=True), value=-1)
    if factor is not None:
        dw.mul_(factor)


def scale_adjoint(dv: Tensor, v: Tensor, similarity: SimilarityName, scale: Tensor) -> Tensor:
    """∂loss/∂λ from ∂loss/∂v and v, both (B, D, H, W); nothing where the similarity has no λ."""
    if similarity not in SCALED:
        return torch.zeros_like(scale)
    wide = torch.promote_types(v.dtype, torch.float32)
    dscale = -(dv.to(wide) * v).sum((0, 2, 3)) / scale.detach().reshape(-1)
    return dscale.sum_to_size(scale.shape).to(scale.dtype)
