"""SBCB: a head that finds semantic boundaries in the encoder's maps, in training alone, to condition the encoder.

Labels, head and loss. Not here: where the head sits (``network``); PIDNet's boundaries, which are of no class.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RADIUS = 2


class WithBoundaries(NamedTuple):
    """What a decoder's loss reads (``others``), and boundary logits (B, K, H, W): of all maps, and of the last one."""

    others: Any
    fused: Tensor
    last: Tensor


class SemanticBoundaryHead(nn.Module):
    """A CASENet head: one boundary map of each encoder map but the last, K of the last one, fused class by class.

        b_k = w_k0 · side_k(last) + Σ_i w_ki · side(map_i) + c_k

    A side is a 1×1 convolution, batch norm, ReLU, upsampling to the image and a 3×3 convolution.

    Parameters
    ----------
    in_channels
        Of the encoder's maps, finest first.
    num_classes
        K. A boundary pixel belongs to each class that meets there.

    References
    ----------
    Ishikawa, Aoki: Boosting Semantic Segmentation by Conditioning the Backbone with Semantic Boundaries, Sensors 23
    (15), 2023; the sides as in the authors' code. Yu et al.: CASENet, CVPR 2017.

    Examples
    --------
    >>> head = SemanticBoundaryHead([8, 16], 5)
    >>> fused, last = head([torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)], (32, 32))
    >>> fused.shape, last.shape
    (torch.Size([2, 5, 32, 32]), torch.Size([2, 5, 32, 32]))
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        *finer, deepest = in_channels
        self.sides = nn.ModuleList([*(_Side(c, 1, bias=False) for c in finer), _Side(deepest, num_classes, bias=True)])
        self.weight = nn.Parameter(torch.empty(num_classes, len(in_channels)))  # w, the last map's first
        self.bias = nn.Parameter(torch.empty(num_classes))
        for parameter in (self.weight, self.bias):  # as torch starts a grouped 1×1 convolution
            nn.init.uniform_(parameter, -1 / math.sqrt(len(in_channels)), 1 / math.sqrt(len(in_channels)))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the fused boundary logits and those of the last map, both (B, K, *size)."""
        *sides, last = (side(x, size) for side, x in zip(self.sides, maps, strict=True))
        fused = last * self.weight[:, 0, None, None] + self.bias[:, None, None]
        if sides:
            fused = fused + F.conv2d(torch.cat(sides, 1), self.weight[:, 1:, None, None])
        return fused, last


class _Side(nn.Module):
    def __init__(self, channels: int, out: int, *, bias: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        self.smooth = nn.Conv2d(out, out, 3, bias=bias)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = F.interpolate(self.reduce(x), size=size, mode="bilinear", align_corners=False)
        return self.smooth(F.pad(x, (1, 1, 1, 1), mode="reflect"))


@torch.no_grad()
def semantic_boundaries(labels: Tensor, num_classes: int, ignore_index: int = 255, radius: int = RADIUS) -> Tensor:
    """Return which classes' boundaries are at each pixel of labels (B, H, W): (B, K, H, W), bool.

    A pixel is at the boundary of class k if it is of k and another class is at most ``radius`` pixels away (Euclidean),
    or the other way round. A void pixel is at no boundary, and makes none; nor does the border of the image.

    >>> semantic_boundaries(torch.tensor([[[0, 0, 0, 1, 1, 255, 2]]]), 3)[0, :, 0].long()
    tensor([[0, 1, 1, 1, 1, 0, 0],
            [0, 1, 1, 1, 1, 0, 1],
            [0, 0, 0, 0, 1, 0, 1]])
    """
    valid = labels != ignore_index
    y = F.one_hot(torch.where(valid, labels, 0).long(), num_classes).permute(0, 3, 1, 2).bool() & valid[:, None]
    padded, near = F.pad(y, (radius,) * 4), torch.zeros_like(y)
    height, width = labels.shape[-2:]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy**2 + dx**2 <= radius**2:
                near |= padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    several = near.sum(1, keepdim=True) > 1  # where a pixel is of k, k itself is near
    return near & several & valid[:, None]


def boundary_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255, radius: int = RADIUS) -> Tensor:
    """Binary cross-entropy of boundary logits (B, K, H, W), boundaries weighing as much as there are fewer of them.

        L = mean_b 1/(K N) Σ_{k, p} w_kp BCE(z_kp, b_kp),   w = β where b = 1, else 1,   β = max(1, (N − N₁) / N₁)

    N: pixels of the image that count; N₁: its boundary pixels, of all classes. Source: the loss of the authors' code
    (class-balanced as in Hu et al.: Dynamic Feature Fusion, IJCAI 2019). Void, ours, counts nowhere.
    """
    b = semantic_boundaries(labels, logits.shape[1], ignore_index, radius).float()
    valid = (labels != ignore_index)[:, None]
    n, ones = valid.sum((1, 2, 3)), b.sum((1, 2, 3))
    beta = ((n - ones) / ones.clamp(min=1)).clamp(min=1)[:, None, None, None]
    weight = valid * (1 + (beta - 1) * b)
    loss = F.binary_cross_entropy_with_logits(logits.float(), b, weight, reduction="none").sum((1, 2, 3))
    seen = n > 0
    return (loss / (n.clamp(min=1) * logits.shape[1])).sum() / seen.sum().clamp(min=1)
