"""The guide made ready for comparison once, not at every pair of pixels: divided by λ, or of unit length.

    charbonnier, gaussian   w = v / λ           ∂v = ∂w / λ,                   ∂λ = −Σ_p ∂w ⊙ w / λ
    cosine                  w = v / ‖v‖         ∂v = (∂w − w ⟨w, ∂w⟩) / ‖v‖    (0 where v = 0)

Not here: the comparison itself (``pairs``).
"""

import torch
from torch import Tensor

from crispseg.similarity import SimilarityName


def prepare(v: Tensor, similarity: SimilarityName, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Prepare v (D, pixels) in place; also return the factor: 1 / λ (D, 1), 1 / ‖v‖ (1, pixels), or None for 1."""
    if similarity == "cosine":
        squared = (v * v).sum(0, keepdim=True)
        factor = torch.where(squared > 0, squared, torch.inf).rsqrt_()
    elif scale is None:
        return v, None
    else:
        factor = scale.detach().to(v.dtype).reshape(-1, 1).reciprocal()
    return v.mul_(factor), factor


def prepare_adjoint(
    dw: Tensor, w: Tensor, similarity: SimilarityName, factor: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Turn ∂loss/∂w (D, pixels) into ∂loss/∂v, in place, and ∂loss/∂λ (D,) where there is a λ."""
    if factor is None:
        return dw, None
    if similarity == "cosine":
        dw.addcmul_(w, (w * dw).sum(0, keepdim=True), value=-1)
        return dw.mul_(factor), None
    dw.mul_(factor)
    return dw, -(w * dw).sum(1)
