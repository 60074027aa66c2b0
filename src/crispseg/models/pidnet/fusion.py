"""How PIDNet's branches meet: Pag lends P what I knows, Bag takes P at boundaries and I inside regions.

Source: Xu, Xiong, Bhattacharyya: PIDNet, CVPR 2023, arXiv 2206.02066: Pag, Bag and Light-Bag.
Not here: the branches themselves (``encoder``).
"""

import torch
from torch import Tensor, nn

from crispseg.models.pidnet.blocks import bn_relu_conv, conv_bn, to_grid


class PagFM(nn.Module):
    """Pixel-attention-guided fusion: where the branches say the same, take the semantic one.

        σ = sigmoid(⟨f_x(p), f_y(i)⟩);   out = (1 − σ) p + σ i

    p: (B, C, H, W); i: (B, C, any, any), brought to the grid of p; the product is over ``width`` channels.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.f_x = conv_bn(channels, width)
        self.f_y = conv_bn(channels, width)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:
        alike = (self.f_x(p) * to_grid(self.f_y(i), p)).sum(dim=1, keepdim=True)
        return torch.lerp(p, to_grid(i, p), torch.sigmoid(alike))


class Bag(nn.Module):
    """Boundary-attention-guided fusion (PIDNet-L), b = sigmoid(d):  out = 3×3(ReLU(BN(b p + (1 − b) i)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*bn_relu_conv(channels, channels, 3))

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        return self.conv(torch.lerp(i, p, torch.sigmoid(d)))


class LightBag(nn.Module):
    """The cheaper Bag of PIDNet-S and -M:  out = f_p((1 − b) i + p) + f_i(b p + i), f a 1×1 convolution with BN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = conv_bn(channels, channels)
        self.conv_i = conv_bn(channels, channels)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        b = torch.sigmoid(d)
        return self.conv_p(torch.addcmul(p, 1 - b, i)).add_(self.conv_i(torch.addcmul(i, b, p)))
