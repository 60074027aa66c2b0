"""Context at stride 64: pyramid pooling in parallel (PAPPM, PIDNet-S and -M) or one scale after another (DAPPM, -L).

Source: DAPPM: Hong, Pan, Sun, Jia: DDRNet, arXiv 2101.06085; PAPPM: PIDNet, arXiv 2206.02066.
Not here: the layers before and after it (``encoder``).
"""

import torch
from torch import Tensor, nn

from crispseg.models.pidnet.blocks import bn_relu_conv, to_grid


class _PyramidPooling(nn.Module):
    """x itself and its means over 5×5, 9×9 and 17×17 pixels and over all, in ``width`` channels each."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.scale0 = nn.Sequential(*bn_relu_conv(in_channels, width))
        self.scale1 = nn.Sequential(nn.AvgPool2d(5, 2, 2), *bn_relu_conv(in_channels, width))
        self.scale2 = nn.Sequential(nn.AvgPool2d(9, 4, 4), *bn_relu_conv(in_channels, width))
        self.scale3 = nn.Sequential(nn.AvgPool2d(17, 8, 8), *bn_relu_conv(in_channels, width))
        self.scale4 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *bn_relu_conv(in_channels, width))
        self.compression = nn.Sequential(*bn_relu_conv(5 * width, out_channels))
        self.shortcut = nn.Sequential(*bn_relu_conv(in_channels, out_channels))

    def scales(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return x and its four means, all on the grid of x."""
        means = [scale(x) for scale in (self.scale1, self.scale2, self.scale3, self.scale4)]
        return self.scale0(x), [to_grid(mean, x) for mean in means]


class PAPPM(_PyramidPooling):
    """Parallel aggregation:  out = compress([x₀ ; process(x₀ + x₁, …, x₀ + x₄)]) + shortcut(x), one grouped 3×3."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__(in_channels, width, out_channels)
        self.scale_process = nn.Sequential(*bn_relu_conv(4 * width, 4 * width, 3, groups=4))

    def forward(self, x: Tensor) -> Tensor:
        own, means = self.scales(x)
        processed = self.scale_process(torch.cat([mean + own for mean in means], dim=1))
        return self.compression(torch.cat([own, processed], dim=1)) + self.shortcut(x)


class DAPPM(_PyramidPooling):
    """Deep aggregation:  y₀ = x₀, y_k = process_k(x_k + y_{k−1});  out = compress([y₀ ; … ; y₄]) + shortcut(x)."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__(in_channels, width, out_channels)
        self.process1 = nn.Sequential(*bn_relu_conv(width, width, 3))
        self.process2 = nn.Sequential(*bn_relu_conv(width, width, 3))
        self.process3 = nn.Sequential(*bn_relu_conv(width, width, 3))
        self.process4 = nn.Sequential(*bn_relu_conv(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        own, means = self.scales(x)
        steps = [own]
        for process, mean in zip((self.process1, self.process2, self.process3, self.process4), means, strict=True):
            steps.append(process(mean + steps[-1]))
        return self.compression(torch.cat(steps, dim=1)) + self.shortcut(x)
