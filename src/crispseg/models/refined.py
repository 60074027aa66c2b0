"""``HeadRefiner``: what the Semantic Diffusion Network adds at the head of a segmenter. Zero at the start.

Not here: where a host's head is, and how its maps get here (``attaching``); the place at the encoder
(``crispseg.nn.neck``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn import SemanticDiffusion
from crispseg.nn.operators import NEEDS_GUIDE


class HeadRefiner(nn.Module):
    """A narrow, fine map of the head's features and of detail, sharpened by SDN and read by a 1×1 convolution A.

        n = up(R f) + L d,   Δ = A · SDN(n, v)

    f is the map that the last classifier reads, d the encoder's stride-2 map or the image, v the class probabilities
    of what the classifier says of f. All work on the fine grid is done in ``width`` channels. A starts at zero, and so
    does Δ, exactly. It is added to the host's own logits, which stay its first answer; for a 1×1 classifier that is
    the family of functions of a second classifier that reads f on the fine grid and SDN(n, v). Where the logits are
    products of f with masks, Δ is added to f itself.

    Parameters
    ----------
    channels, detail_channels, guide_channels
        Of f, d and v.
    out
        Channels of Δ: the classes, or those of f.
    width
        Channels of n.
    ratio
        Stride of L: pixels of d per pixel of Δ.
    look
        Least kernel of L: 1 for a map, 3 for the image.
    finer
        Whether Δ is on the grid of L d, which is finer than that of f; otherwise it is on that of f.
    align_corners
        How the host resizes its logits, and so how f is resized.
    probabilities
        The guide is given as logits, and v is their softmax (of one class, their sigmoid). Otherwise v is the guide.
    identity
        Start with A = 0.
    options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`.

    References
    ----------
    Ours (METHOD.md section 5, "at the head").

    Examples
    --------
    >>> import torch
    >>> f, d, v = torch.rand(1, 32, 8, 8), torch.rand(1, 16, 16, 16), torch.rand(1, 5, 8, 8)
    >>> delta = HeadRefiner(32, 16, guide_channels=5, out=5, width=8)(f, d, v)
    >>> delta.shape, delta.any().item()
    (torch.Size([1, 5, 16, 16]), False)
    """

    def __init__(
        self,
        channels: int,
        detail_channels: int,
        *,
        guide_channels: int,
        out: int,
        width: int,
        ratio: int = 1,
        look: int = 1,
        finer: bool = True,
        align_corners: bool = False,
        probabilities: bool = True,
        identity: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.finer, self.align_corners = finer, align_corners
        blind = options.get("similarity") == "one" or options.get("operator", "sdn") not in NEEDS_GUIDE
        self.probabilities = probabilities and not blind
        kernel = max(look, 2 * ratio - 1)
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.detail = nn.Conv2d(detail_channels, width, kernel, stride=ratio, padding=kernel // 2, bias=False)
        self.sdn = SemanticDiffusion(width, guide_channels, identity=False, **options)
        self.head = nn.Conv2d(width, out, 1)
        if identity:
            nn.init.zeros_(self.head.weight)
            assert self.head.bias is not None
            nn.init.zeros_(self.head.bias)

    def forward(self, f: Tensor, d: Tensor, guide: Tensor) -> Tensor:
        """Return Δ (B, out, h, w) of f (B, C, any, any), d (B, C_d, any, any) and the guide (B, C_v, any, any)."""
        coarse, fine = self.reduce(f), self.detail(d)
        if self.finer:
            coarse = self.resize(coarse, fine)
        else:
            fine = self.resize(fine, coarse)
        v = guide
        if self.probabilities:
            v = guide.softmax(dim=1) if guide.shape[1] > 1 else guide.sigmoid()
        return self.head(self.sdn(coarse + fine, v))

    def resize(self, x: Tensor, like: Tensor) -> Tensor:
        """Bring ``x`` to the grid of ``like`` as the host does."""
        if (
            not (torch._C._get_tracing_state() is not None or torch.compiler.is_exporting())
            and x.shape[-2:] == like.shape[-2:]
        ):
            return x  # what is written down for any size may not depend on this one's
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)
