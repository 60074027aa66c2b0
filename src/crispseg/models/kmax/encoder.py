"""The encoder of kMaX-DeepLab: a timm network on grids whose corners lie on the image's corners.

Not here: any other encoder (``crispseg.models.encoders``).
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crispseg.errors import UsageError
from crispseg.models.encoders import TimmEncoder


class KMaXEncoder(TimmEncoder):
    """A timm backbone, ResNet or ConvNeXt for the published checkpoints, as the authors run it.

    Images are scaled to [−1, 1] and padded to 32 n + 1 pixels (``aligned``), so that pixel (4i, 4j) lies under cell
    (i, j) of the finest map, and so on down; batch norm has ε = 1e-3 and momentum 0.01. ConvNeXt's strided convolutions
    have no padding of their own, so their inputs get zeros: 1 before and 2 behind at the stem, 1 behind at a stage.

    Parameters, errors: as :class:`crispseg.models.TimmEncoder`.

    >>> import torch
    >>> encoder = KMaXEncoder("convnext_atto", pretrained=False)
    >>> [tuple(f.shape[2:]) for f in encoder(torch.rand(1, 3, 65, 33))]
    [(17, 9), (9, 5), (5, 3), (3, 2)]
    """

    aligned = True

    def __init__(self, name: str, pretrained: bool | str | Path = True) -> None:
        super().__init__(name, pretrained)
        if self.strides != [4, 8, 16, 32]:
            raise UsageError(
                f"decoder 'kmax_deeplab' reads maps of strides 4, 8, 16 and 32, and encoder {name!r} has "
                f"{', '.join(map(str, self.strides))}; what fits: resnet18, resnet50, convnext_tiny, … of timm"
            )
        self.mean = self.std = (0.5, 0.5, 0.5)
        for module in self.body.modules():
            if isinstance(module, _BatchNorm):
                module.eps, module.momentum = 1e-3, 0.01

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, n / stride_i + 1, m / stride_i + 1) of an image of n + 1 by m + 1 pixels."""
        body: Any = self.body
        if not (isinstance(body, nn.ModuleDict) and "stages_0" in body):
            return super().forward(x)
        x = body["stages_0"](body["stem_1"](body["stem_0"](F.pad(x, (1, 2, 1, 2)))))
        maps = [x]
        for stage in (body["stages_1"], body["stages_2"], body["stages_3"]):
            maps.append(stage(F.pad(maps[-1], (0, 1, 0, 1))))
        return maps
