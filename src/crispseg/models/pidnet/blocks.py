"""PIDNet's building blocks: residual blocks, stages of them, heads, and how their weights start.

The names of submodules are those of the published checkpoints. Not here: fusion of the branches (``fusion``), the
pyramid pooling (``context``).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """y = x + BN(3×3(ReLU(BN(3×3(x))))), x brought to the shape of y by a 1×1 convolution; with ``relu`` ReLU(y).

    Source: He, Zhang, Ren, Sun: Deep Residual Learning, CVPR 2016, figure 5, left.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, relu: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True) if self.relu else y


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions in ``width`` channels, out in twice as many, added to x. Ends without a ReLU.

    Source: as :class:`BasicBlock`, figure 5, right, with an expansion of 2.
    """

    expansion = 2

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, relu: bool = False) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return y


def stage(block: Any, in_channels: int, width: int, count: int, stride: int = 1) -> nn.Sequential:
    """``count`` blocks, the first with the stride; the last ends without a ReLU, which its readers add if they want."""
    channels = [in_channels, *[width * block.expansion] * (count - 1)]
    return nn.Sequential(
        *(block(c, width, stride=1 if index else stride, relu=index < count - 1) for index, c in enumerate(channels))
    )


class Head(nn.Module):
    """BN, ReLU, 3×3 convolution to ``width``, BN, ReLU, 1×1 convolution to the outputs."""

    def __init__(self, in_channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.bn1(x), inplace=True))
        return self.conv2(F.relu(self.bn2(x), inplace=True))


def conv_bn(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(out_channels)
    )


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> list[nn.Module]:
    """Batch norm, ReLU, convolution without bias."""
    return [
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False),
    ]


def to_grid(x: Tensor, like: Tensor) -> Tensor:
    """``x`` on the grid of ``like``, bilinearly."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def initialise(module: nn.Module) -> None:
    """Draw every convolution from He's normal distribution (fan out), as the authors do; batch norms start neutral."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
