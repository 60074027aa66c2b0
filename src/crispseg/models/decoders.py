"""Decoders: from a list of feature maps, finest first, to class logits.

Contract: ``features(maps) -> (B, .channels, H, W)``, the fused, finest map; ``head`` turns it into logits;
``forward = head ∘ features``; ``heads(maps)`` lists all supervised logits, the main one first.

Not here: the decoder placement of the neck (``refined``), upsampling to the image (``segmenter``).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """What all decoders share: a fused map of ``channels`` channels and a 1×1 head on it."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.head = nn.Conv2d(channels, num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's fused, finest map."""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) on the grid of the fused map."""
        return self.head(self.features(maps))

    def heads(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return every supervised logit map, the main one first."""
        return [self(maps)]


class FCNDecoder(Decoder):
    """Fully convolutional head on the deepest map: 3×3 convolution, batch norm, ReLU, dropout, 1×1 head.

    Source: Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015, in the form that is usual today
    (one hidden layer on a map of stride 8 to 32).
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__(channels, num_classes)
        self.block = nn.Sequential(
            nn.Conv2d(in_channels[-1], channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        )

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return self.block(maps[-1])


class SemanticFPNDecoder(Decoder):
    """Feature pyramid, each level brought to the finest grid by 3×3 convolutions and ×2 upsampling, then summed.

    Source: Kirillov, Girshick, He, Dollár: Panoptic Feature Pyramid Networks, CVPR 2019, section 3.1 and figure 3.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128) -> None:
        super().__init__(channels, num_classes)
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.branches = nn.ModuleList(
            nn.ModuleList(_conv_gn_relu(channels) for _ in range(max(1, level))) for level in range(len(in_channels))
        )

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        laterals = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        pyramid = laterals[-1:]
        for x in reversed(laterals[:-1]):  # top-down: add the coarser level to the finer one
            pyramid.insert(0, x + F.interpolate(pyramid[0], size=x.shape[-2:], mode="nearest"))
        sizes = [x.shape[-2:] for x in pyramid]
        fused = None
        branches: Any = self.branches
        for level, (x, branch) in enumerate(zip(pyramid, branches, strict=True)):
            for step, block in enumerate(branch):
                x = block(x)
                if level:
                    x = F.interpolate(x, size=sizes[level - 1 - step], mode="bilinear", align_corners=False)
            fused = x if fused is None else fused + x
        assert fused is not None
        return fused


def _conv_gn_relu(channels: int) -> nn.Sequential:
    groups = math.gcd(32, max(1, channels // 4))  # at least 4 channels a group: a 1×1 map can be normalised too
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(groups, channels), nn.ReLU()
    )
