"""The head of HRNetV2: all branches on the finest grid, mixed once. Not here: the branches (``encoder``)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.models.decoders import FusedDecoder


class HRNetDecoder(FusedDecoder):
    """Branches upsampled to the finest one and concatenated, a 1×1 convolution, batch norm, ReLU, a 1×1 head.

        F = ReLU(BN(Conv1×1([F_1; up(F_2); up(F_3); up(F_4)]))),  logits = Conv1×1(F)

    Parameters
    ----------
    in_channels
        Channels of the branches, finest first.
    num_classes
        Number of classes K.
    channels
        Channels of F; None: as many as the branches have together, 15 C (270 for W18), the authors' choice.
    align_corners
        Of all bilinear upsampling, that to the image too.

    References
    ----------
    HRNet, arXiv 1908.07919, section 3 (representation head) and figure 4 (b), HRNetV2.

    Examples
    --------
    >>> maps = [torch.rand(1, 16 << level, 16 >> level, 16 >> level) for level in range(4)]
    >>> HRNetDecoder([16, 32, 64, 128], 19).eval()(maps).shape
    torch.Size([1, 19, 16, 16])
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int | None = None, *, align_corners: bool = False
    ) -> None:
        together = sum(in_channels)
        super().__init__(channels or together, num_classes)
        self.align_corners = align_corners
        self.fuse = nn.Sequential(
            nn.Conv2d(together, self.channels, 1), nn.BatchNorm2d(self.channels), nn.ReLU(inplace=True)
        )

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        coarser = [F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners) for x in maps[1:]]
        return self.fuse(torch.cat([maps[0], *coarser], dim=1))
