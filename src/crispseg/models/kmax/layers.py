"""What both decoders of kMaX-DeepLab are made of: a convolution with its norm and activation, and the way up.

Names of submodules are those of the published checkpoints without their leading underscores. Not here: the decoders.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def batch_norm(channels: int, dims: int = 2, *, gain: float = 1.0) -> nn.Module:
    """Batch norm with the authors' ε = 1e-3 and momentum 0.01, its scale starting at ``gain``."""
    norm: nn.Module = NORMS[dims](channels, eps=1e-3, momentum=0.01)
    nn.init.constant_(norm.weight, gain)  # type: ignore[arg-type]
    return norm


def truncated_normal(weight: Tensor, std: float) -> None:
    """Fill with a normal distribution cut off at two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class ConvNorm(nn.Module):
    """Convolution, batch norm, GELU, on maps (``dims`` 2) or on queries (``dims`` 1).

    Depthwise if ``kernel_size`` is above 1 and ``groups`` equals the channels; then Xavier's start, else He's over the
    input channels alone, as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dims: int = 2,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        norm: bool = True,
        activation: bool = True,
        gain: float = 1.0,
        std: float | None = None,
    ) -> None:
        super().__init__()
        kind = nn.Conv1d if dims == 1 else nn.Conv2d
        padding = dilation * (kernel_size // 2)
        self.conv = kind(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        self.norm = batch_norm(out_channels, dims, gain=gain) if norm else nn.Identity()
        self.activation = nn.GELU() if activation else nn.Identity()
        if groups > 1:
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            truncated_normal(self.conv.weight, std or math.sqrt(2 / in_channels))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


def depthwise(channels: int) -> ConvNorm:
    """5×5, each channel by itself."""
    return ConvNorm(channels, channels, 5, groups=channels)


def single_or_double(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is in float64: for what half precision is too coarse for."""
    return x if x.dtype == torch.float64 else x.float()


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bring a map to another's grid, bilinearly, corner on corner.

    The images are padded to 32 n + 1 pixels (``encoder``), so the grids' corners lie on one another; for n even, which
    the authors' sizes are, their code does the same.
    """
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
