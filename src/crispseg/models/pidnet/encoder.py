"""PIDNet's three branches: P keeps detail at stride 8, I gathers context down to stride 64, D finds boundaries.

Source: Xu, Xiong, Bhattacharyya: PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers, CVPR
2023, arXiv 2206.02066, and the table of its instantiation in the authors' README. Names of submodules are those of the
published checkpoints: ``layerN`` is I, ``layerN_`` is P, ``layerN_d`` is D.

Not here: what joins the branches at the end (``decoder``), reading weights (``weights``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError, nearest
from crispseg.models.pidnet import weights
from crispseg.models.pidnet.blocks import BasicBlock, Bottleneck, conv_bn, initialise, stage, to_grid
from crispseg.models.pidnet.context import DAPPM, PAPPM
from crispseg.models.pidnet.fusion import PagFM


@dataclass(frozen=True)
class Size:
    """What tells S, M and L apart: the stem's width, blocks of the early and the late stages, width of the context."""

    width: int
    early: int
    late: int
    context: int
    light: bool  # PAPPM, Light-Bag and a narrow D branch; else DAPPM, Bag and a wide one


# As in the authors' code and README. The paper's comparison counts 34.4 M parameters for M: those of 4 late blocks.
SIZES = {
    "pidnet_s": Size(width=32, early=2, late=3, context=96, light=True),
    "pidnet_m": Size(width=64, early=2, late=3, context=96, light=True),
    "pidnet_l": Size(width=64, early=3, late=4, context=112, light=False),
}


class PIDNetEncoder(nn.Module):
    """Stem and branches: an image to the maps P, I and D, and the earlier P and D that the training heads read.

    All five at stride 8, P, I and D of 4·width channels, the other two of 2·width.

    Parameters
    ----------
    name
        ``"pidnet_s"``, ``"pidnet_m"`` or ``"pidnet_l"``.
    pretrained
        ``False``: random weights. A path: the authors' ImageNet weights, or their whole trained network, of which the
        encoder's part is taken (``load_pidnet`` takes all of it).

    Raises
    ------
    UsageError
        No PIDNet of that name; ``pretrained=True``, since no package index has the weights.
    DataError
        The weights file is not one, or is another network's.

    Examples
    --------
    >>> import torch
    >>> encoder = PIDNetEncoder("pidnet_s", pretrained=False).eval()
    >>> [tuple(m.shape[1:]) for m in encoder(torch.rand(1, 3, 64, 128))]
    [(128, 8, 16), (128, 8, 16), (128, 8, 16), (64, 8, 16), (64, 8, 16)]
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, name: str, pretrained: bool | str | Path = False) -> None:
        super().__init__()
        if name not in SIZES:
            raise UsageError(f"no PIDNet {name!r}{nearest(name, SIZES)}")
        if pretrained is True:
            raise UsageError(
                f"no pretrained weights for encoder {name!r} could be found; fetch the authors' file (see "
                "github.com/XuJiacong/PIDNet) and give its path as `pretrained`, or `false` for random weights"
            )
        size = SIZES[name]
        c, early, late = size.width, size.early, size.late
        self.channels = [4 * c, 4 * c, 4 * c, 2 * c, 2 * c]
        self.strides = [8, 8, 8, 8, 8]
        self.decoder_options = {"light": size.light}

        self.conv1 = nn.Sequential(
            nn.Conv2d(3, c, 3, stride=2, padding=1),
            nn.BatchNorm2d(c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, 3, stride=2, padding=1),
            nn.BatchNorm2d(c),
            nn.ReLU(inplace=True),
        )
        self.layer1 = stage(BasicBlock, c, c, early)
        self.layer2 = stage(BasicBlock, c, 2 * c, early, stride=2)
        self.layer3 = stage(BasicBlock, 2 * c, 4 * c, late, stride=2)
        self.layer4 = stage(BasicBlock, 4 * c, 8 * c, late, stride=2)
        self.layer5 = stage(Bottleneck, 8 * c, 8 * c, 2, stride=2)
        self.spp = (PAPPM if size.light else DAPPM)(16 * c, size.context, 4 * c)

        self.layer3_ = stage(BasicBlock, 2 * c, 2 * c, early)
        self.compression3 = conv_bn(4 * c, 2 * c)
        self.pag3 = PagFM(2 * c, c)
        self.layer4_ = stage(BasicBlock, 2 * c, 2 * c, early)
        self.compression4 = conv_bn(8 * c, 2 * c)
        self.pag4 = PagFM(2 * c, c)
        self.layer5_ = stage(Bottleneck, 2 * c, 2 * c, 1)

        narrow = c if size.light else 2 * c
        self.layer3_d = BasicBlock(2 * c, narrow)
        self.diff3 = conv_bn(4 * c, narrow, 3)
        self.layer4_d: nn.Module = stage(Bottleneck, c, c, 1) if size.light else BasicBlock(2 * c, 2 * c)
        self.diff4 = conv_bn(8 * c, 2 * c, 3)
        self.layer5_d = stage(Bottleneck, 2 * c, 2 * c, 1)

        initialise(self)
        if pretrained:
            weights.load_encoder(self, pretrained)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return [P, I, D, early P, early D], each (B, C, ⌈H/8⌉, ⌈W/8⌉), of a normalised image (B, 3, H, W)."""
        x = self.layer1(self.conv1(x))
        x = _relu(self.layer2(_relu(x)))
        p, d = self.layer3_(x), self.layer3_d(x)

        x = _relu(self.layer3(x))
        early_p = p = _relu(self.pag3(p, self.compression3(x)))
        d = _relu(d.add_(to_grid(self.diff3(x), d)))

        x = _relu(self.layer4(x))
        p = _relu(self.pag4(self.layer4_(p), self.compression4(x)))
        d = self.layer4_d(d)
        early_d = d = _relu(d.add_(to_grid(self.diff4(x), d)))

        p, d = self.layer5_(p), self.layer5_d(d)
        i = to_grid(self.spp(self.layer5(x)), p)
        return [p, i, d, early_p, early_d]


def _relu(x: Tensor) -> Any:
    return F.relu(x, inplace=True)
