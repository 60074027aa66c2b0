"""The encoder of HRNet: timm's, up to the four branches of the last stage. Not here: the head (``decoder``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.encoders import TimmEncoder, timm_knows


class HRNetEncoder(TimmEncoder):
    """timm's HRNet as the four parallel branches of stage 4: strides 4 to 32, C to 8 C channels; images are not padded.

    timm gives by default what the image classifier makes of the branches; here they are as the last exchange leaves
    them, and branches are exchanged as in the authors' segmentation networks (:class:`Exchange`).

    Parameters, errors: as :class:`crispseg.models.TimmEncoder`, and ``align_corners`` of the exchange.

    References
    ----------
    HRNet, arXiv 1908.07919, section 3; HRNet/HRNet-Semantic-Segmentation, ``lib/models/seg_hrnet.py``.

    Examples
    --------
    >>> import torch
    >>> encoder = HRNetEncoder("hrnet_w18_small", pretrained=False).eval()
    >>> [tuple(f.shape[1:]) for f in encoder(torch.rand(1, 3, 90, 64))]
    [(16, 23, 16), (32, 12, 8), (64, 6, 4), (128, 3, 2)]
    """

    multiple = 1

    def __init__(self, name: str, pretrained: bool | str | Path = True, *, align_corners: bool = False) -> None:
        if not name.startswith("hrnet") and timm_knows(name):
            raise UsageError(
                f"encoder {name!r} is not an HRNet; timm has hrnet_w18_small, hrnet_w18, hrnet_w32, hrnet_w48, …"
            )
        super().__init__(name, pretrained, feature_location="")
        body: Any = self.body
        for stage in (body.stage2, body.stage3, body.stage4):
            for index, module in enumerate(stage):
                stage[index] = Exchange(module, align_corners)


class Exchange(nn.Module):
    """One module of HRNet: every branch through its blocks, then each the sum of all, brought to its grid.

    timm's parts under timm's names. A coarser branch comes up bilinearly to the finer one's very size, as the authors
    segment; timm takes the nearest pixel, as the authors classify, at a fixed factor, for which sizes have to divide.
    """

    def __init__(self, module: Any, align_corners: bool) -> None:
        super().__init__()
        self.branches, self.fuse_layers, self.align_corners = module.branches, module.fuse_layers, align_corners
        for target, row in enumerate(self.fuse_layers):
            for source in range(target + 1, len(row)):
                row[source] = row[source][:2]  # without the upsampling at the end

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [F.relu(self._gathered(target, row, maps)) for target, row in enumerate(self.fuse_layers)]

    def _gathered(self, target: int, row: Any, maps: Sequence[Tensor]) -> Tensor:
        size = maps[target].shape[-2:]
        total = None
        for source, (layer, x) in enumerate(zip(row, maps, strict=True)):
            y = layer(x)
            if source > target:
                y = F.interpolate(y, size=size, mode="bilinear", align_corners=self.align_corners)
            total = y if total is None else total + y
        assert total is not None
        return total
