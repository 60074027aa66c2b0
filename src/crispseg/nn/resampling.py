"""Learned upsampling in the operator's place: a map on the fine grid already is sampled or averaged anew there.

Rivals of SDN. The map u that a neck at the head works on is the head's map, upsampled bilinearly, with detail of the
encoder added; these decide from it where, or from which neighbours, each pixel should rather have been taken.

Not here: the operators that difference (``sdc``), and what is done with y (``sdn``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg import stencil
from crispseg.nn.options import check_values

FACTOR = 0.25
"""DySample's static factor on its offsets."""
SPREAD = 1e-3
"""Deviation of DySample's weights at the start, so that y is u nearly."""
COMPRESSED = 64
"""Channels from which CARAFE predicts its kernels."""


class DynamicSampling(nn.Module):
    """DySample: every pixel is sampled at its own position, which is computed from the map.

        y_p = u(p + 0.25 · (O u)_p),   u(·): bilinear; the border repeats

    O: a 1×1 convolution to an offset (x, y) in pixels for each of ``groups`` groups of channels (theirs: 4).
    Source: Liu, Lu, Fu, Cao: Learning to Upsample by Learning to Sample, ICCV 2023, equations 1 to 6, in the form with
    a static factor. There the offsets of s² fine pixels are predicted at a coarse one; here, on the fine grid already,
    at each pixel.

    Examples
    --------
    >>> DynamicSampling(8, groups=4)(torch.rand(1, 8, 6, 7), None).shape
    torch.Size([1, 8, 6, 7])
    """

    def __init__(self, channels: int, *, groups: int = 1) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 2 * groups, 1)
        nn.init.normal_(self.offset.weight, std=SPREAD)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, u: Tensor, v: Tensor | None) -> Tensor:
        """Return y, the shape of u (B, C, H, W); v is not looked at."""
        batch, channels, height, width = u.shape
        offset = FACTOR * self.offset(u).float()
        groups = offset.shape[1] // 2
        x = torch.arange(width, device=u.device) + 0.5 + offset[:, :groups]
        y = torch.arange(height, device=u.device)[:, None] + 0.5 + offset[:, groups:]
        grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1).flatten(0, 1).to(u.dtype)
        maps = u.reshape(batch * groups, channels // groups, height, width)
        return F.grid_sample(maps, grid, padding_mode="border", align_corners=False).reshape(u.shape)


class ContentReassembly(nn.Module):
    """CARAFE: every pixel is a weighted mean of its neighbours, with its own weights, which are computed from the map.

        y_p = Σ_{q∈N(p)} softmax_q((E ReLU(R u))_p) u_{p+q},   N: k_up × k_up neighbours; the border repeats

    R: 1×1 to at most 64 channels; E: k × k to a weight for each neighbour, and group of channels; k_up = k + 2.
    Source: Wang, Chen, Xu, Liu, Loy, Lin: CARAFE, ICCV 2019, equations 1 to 4. There a coarse map is averaged and
    brought to the fine grid at once; here it is on the fine grid already, with the encoder's detail, as FADE (Lu et
    al., ECCV 2022) lets kernels see both.

    Examples
    --------
    >>> ContentReassembly(8)(torch.ones(1, 8, 6, 7), None).mean().item()
    1.0
    """

    def __init__(self, channels: int, *, kernel_size: int = 3, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.taps = stencil.offsets(kernel_size + 2, dilation)
        inner = min(channels, COMPRESSED)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.encode = nn.Conv2d(inner, groups * len(self.taps), kernel_size, padding=kernel_size // 2)

    def forward(self, u: Tensor, v: Tensor | None) -> Tensor:
        """Return y, the shape of u (B, C, H, W); v is not looked at."""
        kernels = self.encode(self.reduce(u).relu()).unflatten(1, (-1, len(self.taps))).softmax(2)
        radius = max(map(max, self.taps))
        padded = stencil.pad(u, radius).unflatten(1, (kernels.shape[1], -1))
        y = torch.zeros_like(u).unflatten(1, (kernels.shape[1], -1))
        for number, tap in enumerate(self.taps):
            y = y + kernels[:, :, number, None] * stencil.view(padded, tap, radius)
        return y.flatten(1, 2)


def dysample(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """DySample; of the options it looks at ``groups``, the groups of channels with offsets of their own."""
    check_values(channels, channels, least_kernel=1, **options)
    return DynamicSampling(channels, **{key: options[key] for key in ("groups",) if key in options})


def carafe(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """CARAFE; of the options it looks at ``kernel_size`` k, ``dilation`` of N, and ``groups`` of channels."""
    check_values(channels, channels, least_kernel=1, **options)
    chosen = ("kernel_size", "dilation", "groups")
    return ContentReassembly(channels, **{key: options[key] for key in chosen if key in options})
