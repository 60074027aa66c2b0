"""The auxiliary semantic head of kMaX-DeepLab: a classifier of the encoder's pixels, there only to teach the encoder.

Source: Cheng et al.: Panoptic-DeepLab, CVPR 2020, the semantic branch; Yu et al., ECCV 2022, section 4.1.
Not here: its loss (``decoder``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crispseg.models.kmax.layers import ConvNorm, depthwise, resize

RATES = (6, 12, 18)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1×1, three dilated 3×3, the image's mean; mixed by 1×1, dropout."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.aspp_conv0 = ConvNorm(in_channels, channels)
        self.aspp_conv1, self.aspp_conv2, self.aspp_conv3 = (
            ConvNorm(in_channels, channels, 3, dilation=rate) for rate in RATES
        )
        self.aspp_pool = ConvNorm(in_channels, channels)
        self.proj_conv_bn_act = ConvNorm(5 * channels, channels)
        self.proj_drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.aspp_conv0(x), self.aspp_conv1(x), self.aspp_conv2(x), self.aspp_conv3(x)]
        mean = self.aspp_pool(x.mean((2, 3), keepdim=True)).expand_as(branches[0])
        return self.proj_drop(self.proj_conv_bn_act(torch.cat([*branches, mean], dim=1)))


class SemanticHead(nn.Module):
    """Maps of stride 4, 8 (and 16) and 32, finest first, to logits (B, K + 1, h, w) at stride 4; the last is void's."""

    def __init__(self, in_channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        c, at8, at4 = 2 * width, width // 2, width // 4
        self.aspp = ASPP(in_channels[-1], c)
        self.low_level_projection_os8 = ConvNorm(in_channels[1], at8)
        self.low_level_fusion_os8_conv0_bn_act = depthwise(c + at8)
        self.low_level_fusion_os8_conv1_bn_act = ConvNorm(c + at8, c)
        self.low_level_projection_os4 = ConvNorm(in_channels[0], at4)
        self.low_level_fusion_os4_conv0_bn_act = depthwise(c + at4)
        self.low_level_fusion_os4_conv1_bn_act = ConvNorm(c + at4, c)
        self.conv_block_0 = depthwise(c)
        self.conv_block_1 = ConvNorm(c, c)
        self.final_conv = ConvNorm(c, num_classes + 1, bias=True, norm=False, activation=False, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x, low = self.aspp(maps[-1]), self.low_level_projection_os8(maps[1])
        x = torch.cat([resize(x, low), low], dim=1)
        x = self.low_level_fusion_os8_conv1_bn_act(self.low_level_fusion_os8_conv0_bn_act(x))
        low = self.low_level_projection_os4(maps[0])
        x = torch.cat([resize(x, low), low], dim=1)
        x = self.low_level_fusion_os4_conv1_bn_act(self.low_level_fusion_os4_conv0_bn_act(x))
        return self.final_conv(self.conv_block_1(self.conv_block_0(x)))
