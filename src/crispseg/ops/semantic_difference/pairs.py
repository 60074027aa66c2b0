"""One half of the stencil serves all of it: when p and q change places, S ⊙ (u_q − u_p) changes its sign, no more.

So a pair of neighbours (p, q = p + o) is visited once, for the offsets o of half the stencil. With d_o(p) =
S(v_p, v_q) ⊙ (u_q − u_p), the tap o sees d_o(p) and the tap −o sees −d_o(p − o). This file has the arithmetic of one
such visit, for a block of pixels, forward and back; every S here is symmetric in p and q.

v arrives *prepared*: divided by λ, or of unit length for ``cosine``, so that λ appears nowhere below. All blocks are
(channels, pixels), p and q two views of the same block, and the adjoints add to blocks of that kind.

Derivatives, with a = v_q − v_p (prepared), G = ∂loss/∂d, D = guide channels:

    ∂u_q = −∂u_p = G ⊙ S
    charbonnier   S = (1 + a²)^−½         ∂v_q = −∂v_p = −G ⊙ (u_q − u_p) ⊙ S³ ⊙ a
    gaussian      S = exp(−‖a‖² / 2D)     ∂v_q = −∂v_p = −⟨G, u_q − u_p⟩ S a / D
    cosine        S = max(0, ⟨v_p, v_q⟩)  ∂v_q = ⟨G, u_q − u_p⟩ [S > 0] v_p,   ∂v_p likewise with v_q

Not here: where the blocks come from, the weights W, and how v is prepared.
"""

import torch
from torch import Tensor

from crispseg.similarity import SimilarityName

Pair = tuple[Tensor, Tensor]
"""What is at p and what is at q: two views of one block."""


def similarity_of(similarity: SimilarityName, v: Pair) -> tuple[Tensor, Tensor]:
    """S, (channels, pixels) or (1, pixels), and a, or v_p where a plays no part."""
    v_p, v_q = v
    if similarity == "one":
        return v_p.new_ones((1, 1)), v_p
    if similarity == "cosine":
        return (v_p * v_q).sum(0, keepdim=True).clamp_(min=0), v_p
    a = v_q - v_p
    if similarity == "charbonnier":
        return torch.addcmul(a.new_ones(()), a, a).rsqrt_(), a
    return (a * a).mean(0, keepdim=True).mul_(-0.5).exp_(), a


def add_adjoint_of_u(G: Tensor, factor: Tensor, du: Pair) -> None:
    """Add ∂loss/∂u; ``factor`` is S, or 1 − S in the contrast form. ``G`` becomes G ⊙ factor."""
    du_p, du_q = du
    G.mul_(factor)
    du_q.add_(G)
    du_p.sub_(G)


def add_adjoint_of_v(similarity: SimilarityName, dS: Tensor, S: Tensor, a: Tensor, v: Pair, dv: Pair) -> None:
    """Add ∂loss/∂v of the prepared guide; ``dS`` = ± G ⊙ (u_q − u_p), minus in the contrast form. Overwrites ``dS``."""
    (v_p, v_q), (dv_p, dv_q) = v, dv
    if similarity == "charbonnier":
        dS.mul_(S).mul_(S).mul_(S)
        dv_p.addcmul_(dS, a)
        dv_q.addcmul_(dS, a, value=-1)
    elif similarity == "gaussian":
        dS = dS.sum(0, keepdim=True).mul_(S).div_(a.shape[0])
        dv_p.addcmul_(dS, a)
        dv_q.addcmul_(dS, a, value=-1)
    elif similarity == "cosine":
        dS = dS.sum(0, keepdim=True).mul_(S > 0)
        dv_p.addcmul_(dS, v_q)
        dv_q.addcmul_(dS, v_p)
