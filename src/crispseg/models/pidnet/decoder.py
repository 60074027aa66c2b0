"""PIDNet's decoder: Bag joins the three branches; its own loss supervises class, detail and boundary.

Not here: the branches (``encoder``), boundary labels and the loss against them (``boundaries``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crispseg.models.decoders import Criterion, FusedDecoder
from crispseg.models.pidnet.blocks import Head, initialise
from crispseg.models.pidnet.boundaries import boundary_target, weighted_bce
from crispseg.models.pidnet.fusion import Bag, LightBag

BOUNDARY_WEIGHT = 20.0
BOUNDARY_CERTAIN = 0.8


class PIDNetDecoder(FusedDecoder):
    """Bag or Light-Bag on P, I and D, and a head; two more heads in training, on the earlier P and the earlier D.

    Parameters
    ----------
    in_channels
        Those of :class:`PIDNetEncoder`.
    num_classes
        Number of classes K.
    channels
        Width of the heads; None: the authors', 128 for S and M, 256 for L.
    light
        Light-Bag (S and M); else Bag (L). ``build_model`` takes it from the encoder.

    References
    ----------
    PIDNet, arXiv 2206.02066: Bag, and the losses l₀ to l₃.

    Examples
    --------
    >>> maps = [torch.rand(1, c, 8, 16) for c in (128, 128, 128, 64, 64)]
    >>> decoder = PIDNetDecoder([128, 128, 128, 64, 64], 19).eval()
    >>> decoder(maps).shape, [tuple(other.shape) for other in decoder.others(maps)]
    (torch.Size([1, 19, 8, 16]), [(1, 19, 8, 16), (1, 1, 8, 16)])
    """

    takes_boundaries = False  # it has its own, and its last map is not the deepest
    align_corners = True  # the authors' upsampling, in training and in evaluation

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int | None = None, *, light: bool = True
    ) -> None:
        width = channels or (128 if light else 256)
        fused, *_, early_p, early_d = in_channels
        super().__init__(fused, num_classes, Head(fused, width, num_classes))
        self.dfm = (LightBag if light else Bag)(fused)
        self.seghead_p = Head(early_p, width, num_classes)
        self.seghead_d = Head(early_d, early_d // 2, 1)
        initialise(self)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return self.dfm(*maps[:3])

    def others(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the class logits (B, K, h, w) of the early P, and the boundary logits (B, 1, h, w) of the early D."""
        return [self.seghead_p(maps[3]), self.seghead_d(maps[4])]

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the four losses' sum; void pixels count nowhere, and what void could have touched is no boundary.

            L = λ₀ l(z_P, y) + λ₁ wBCE(z_D, ∂y) + λ₂ l(z, y) + λ₃ l(z, y where sigmoid(z_D) > 0.8)

        l: the criterion (the authors' is OHEM); λ₀ = ``aux_weight`` (theirs 0.4), λ₁ = 20, λ₂ = λ₃ = 1; ∂y:
        :func:`boundary_target`. All logits at the size of target (B, H, W). Source: the paper's l₀ to l₃; for z_P
        the authors take plain cross-entropy, here it is the criterion too.
        """
        detail, edge, *more = others
        boundary, counts = boundary_target(target, criterion.ignore_index)
        certain = torch.where(edge[:, 0].sigmoid() > BOUNDARY_CERTAIN, target, criterion.ignore_index)
        return (
            super().loss(logits, [detail, *more], target, criterion)
            + BOUNDARY_WEIGHT * weighted_bce(edge[:, 0], boundary, counts)
            + criterion(logits, certain)
        )
