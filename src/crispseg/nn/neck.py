"""``SemanticDiffusionNeck``: Semantic Diffusion Networks between an encoder and a decoder, neither of them changed.

Not here: the decoder placement, which needs a head (``crispseg.models.refined``).
"""

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from crispseg.nn.operators import needs_guide
from crispseg.nn.options import whole
from crispseg.nn.sdn import SemanticDiffusion, inner_width


class SemanticDiffusionNeck(nn.Module):
    """A list of feature maps in, the same list out, boundaries sharpened. The identity at the start.

    *Multi-scale* (a list of channels, finest first): level i is guided by the next deeper level as the encoder gave
    it, SDN(F_i, F_{i+1}); the deepest by its own 3×3 stride-2 convolution.
    *Single-scale* (an int): only the deepest map is refined, guided by its own 3×3 stride-2 convolution; the maps
    before it, if there are any, pass through.

    Parameters
    ----------
    channels
        Channels of each map, finest first, or those of the deepest map alone. A level of 0 channels passes through.
    width
        As in :class:`SemanticDiffusion`: wider maps are worked on in so many channels, the deepest one's guide too.
    options
        Passed on to :class:`SemanticDiffusion`: ``operator``, ``similarity``, ``scale``, ``contrast``, ….

    Raises
    ------
    ValueError
        Options as in :class:`SemanticDiffusion`; no map, or one that is to be guided by a level of 0 channels.
        ``forward`` got another number of maps than ``channels`` names.

    References
    ----------
    SDN, arXiv 2302.02057, figures 3 and 4: single-scale and multi-scale decoders.

    Examples
    --------
    >>> import torch
    >>> features = [torch.rand(1, 8, 16, 16), torch.rand(1, 16, 8, 8)]
    >>> refined = SemanticDiffusionNeck([8, 16])(features)
    >>> [torch.equal(a, b) for a, b in zip(refined, features)]
    [True, True]
    """

    def __init__(self, channels: int | Sequence[int], *, width: int | None = None, **options: Any) -> None:
        super().__init__()
        self.single = isinstance(channels, int)
        self.channels = [channels] if isinstance(channels, int) else list(channels)
        guided = needs_guide(options.get("operator", "sdn"), options.get("similarity", "charbonnier"))
        _check_channels(self.channels, guided)
        guides = [*self.channels[1:], inner_width(self.channels[-1], width)]
        self.levels = nn.ModuleList(
            SemanticDiffusion(c, guide or None, width=width, **options) if c else nn.Identity()
            for c, guide in zip(self.channels, guides, strict=True)
        )
        self.guide = _own_guide(self.channels[-1], guides[-1]) if guided else nn.Identity()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Refine ``features``, maps (B, C_i, H_i, W_i), finest first; shapes do not change."""
        features = list(features)
        passed, refined = (features[:-1], features[-1:]) if self.single else ([], features)
        if len(refined) != len(self.channels):
            raise ValueError(f"the neck was built for {len(self.channels)} maps, found {len(refined)}")
        guides = [*refined[1:], self.guide(refined[-1])]
        return passed + [
            level(u, v) if c else u for c, level, u, v in zip(self.channels, self.levels, refined, guides, strict=True)
        ]


def _check_channels(channels: Sequence[int], guided: bool) -> None:
    for c in channels:
        whole("channels", c, least=0)
    if not channels or not channels[-1]:
        raise ValueError(f"the deepest map must have channels, found {list(channels)}")
    if guided and any(c and not deeper for c, deeper in itertools.pairwise(channels)):
        raise ValueError(f"a map's guide, the next deeper one, must have channels, found {list(channels)}")


def _own_guide(channels: int, width: int) -> nn.Module:
    """A 3×3 stride-2 convolution; if the guide is narrower than the map, after a 1×1 that makes it so."""
    stride_2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
    return stride_2 if width == channels else nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), stride_2)
