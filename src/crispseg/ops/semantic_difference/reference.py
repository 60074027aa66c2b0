"""The formula of Semantic Difference Convolution, as it reads. The tests compare every faster implementation with it.

    y_p = Σ_{q∈N(p)} W_{q−p} · [ S(v_p, v_q) ⊙ (u_q − u_p) ]

u: features; v: guide; W: learnable weights; S: semantic similarity, or 1 − S for the contrast form.
Source: SDN, arXiv 2302.02057, section 3.
"""

import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil
from crispseg.similarity import SIMILARITIES, Scale, SimilarityName


def semantic_difference(
    u: Tensor,
    v: Tensor,
    weight: Tensor,
    *,
    similarity: SimilarityName,
    scale: Scale,
    contrast: bool,
    dilation: int,
    groups: int,
) -> Tensor:
    """Sum over the neighbours, one 1×1 convolution a tap; arguments as checked by ``api``. No graph where k = 1."""
    k = weight.shape[-1]
    S = SIMILARITIES[similarity]
    y = u.new_zeros((u.shape[0], weight.shape[0], *u.shape[2:]), dtype=weight.dtype)
    for tap, offset in enumerate(stencil.offsets(k, dilation)):
        if offset == (0, 0):
            continue
        u_q, v_q = stencil.shifted(u, offset), stencil.shifted(v, offset)
        s = (1 - S(v, v_q, scale) if contrast else S(v, v_q, scale)).to(u.dtype)  # λ may be of a wider type
        W_tap = weight[:, :, tap // k, tap % k, None, None]
        y = y + F.conv2d(s * (u_q - u), W_tap, groups=groups)
    return y
