"""Decoders: from a list of feature maps, finest first, to class logits.

Contract: ``forward(maps)`` returns logits on the grid of one of the maps; ``outputs(maps)`` returns these and what else
is supervised; ``loss`` says how. A decoder with one fused map has ``features(maps)`` and ``head`` too, so that it can
be refined (``crispseg.models.refined``).

Not here: the decoder placement of the neck (``refined``), upsampling to the image (``network``).
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Criterion(Protocol):
    """A pixel's loss, as the trainer gives it: ``crispseg.losses.Criterion``."""

    ignore_index: int
    aux_weight: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, H, W) against labels (B, H, W)."""
        ...


class Decoder(nn.Module):
    """What the trainer asks of every decoder.

    ``align_corners``: how its logits are brought to the image, which is a part of a published network.
    ``takes_auxiliary``: its loss has a place for a further head's logit map. ``takes_boundaries``: a head of semantic
    boundaries may be beside it.
    """

    align_corners = False
    takes_auxiliary = True
    takes_boundaries = True

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) on the grid of one of the maps."""
        return self.outputs(maps)[0]

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """Return the logits, and what else ``loss`` reads.

        A list of logit maps reaches the loss at the size of the image; anything else as it is.
        """
        raise NotImplementedError

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the training loss: that of the logits and, weighted, of each other logit map.

        L = L(logits) + aux_weight · Σ L(other).  logits: (B, K, H, W) at the size of target (B, H, W).
        """
        total = criterion(logits, target)
        for other in others:
            total = total + criterion.aux_weight * criterion(other, target)
        return total


class FusedDecoder(Decoder):
    """A decoder that ends in one fused map of ``channels`` channels and a head on it, by default 1×1."""

    def __init__(self, channels: int, num_classes: int, head: nn.Module | None = None) -> None:
        super().__init__()
        self.channels, self.num_classes = channels, num_classes
        self.head: nn.Module = nn.Conv2d(channels, num_classes, 1) if head is None else head

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's fused, finest map."""
        raise NotImplementedError

    def others(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the logit maps of further heads, which only ``loss`` reads."""
        return []

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.head(self.features(maps))

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.head(self.features(maps)), self.others(maps)


class FCNDecoder(FusedDecoder):
    """Fully convolutional head on the deepest map: 3×3 convolution, batch norm, ReLU, dropout, 1×1 head.

    Source: Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015, in the form that is usual today
    (one hidden layer on a map of stride 8 to 32).
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.1) -> None:
        super().__init__(channels, num_classes)
        self.block = nn.Sequential(
            nn.Conv2d(in_channels[-1], channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        )

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return self.block(maps[-1])


class SemanticFPNDecoder(FusedDecoder):
    """Feature pyramid, each level brought to the finest grid by 3×3 convolutions and ×2 upsampling, then summed.

    ``between`` is the place of a neck on the laterals: the maps after their 1×1 convolutions, before the top-down path.

    Source: Kirillov, Girshick, He, Dollár: Panoptic Feature Pyramid Networks, CVPR 2019, section 3.1 and figure 3.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128) -> None:
        super().__init__(channels, num_classes)
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.between: nn.Module = nn.Identity()
        self.branches = nn.ModuleList(
            nn.ModuleList(_conv_gn_relu(channels) for _ in range(max(1, level))) for level in range(len(in_channels))
        )

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        laterals = self.between([lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)])
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
