"""``FeatureFusion``: mix a boundary response into the features it came from, starting as the identity.

Not here: how the response is made.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn.options import whole
from crispseg.nn.sdc import resize


class FeatureFusion(nn.Module):
    """Residual fusion of features u with a response y, exactly u at the start.

        f = u + Conv1×1([r ; y])

    r is u, or a narrower map made of it. With zero weights this is the same family of maps as Conv1×1([u ; y])
    initialised to pass u through, and exact in every precision. The concatenation is never built: the convolution is
    split into its two halves.

    Parameters
    ----------
    channels
        Channels of u and of the result.
    response_channels
        Channels of y; default ``channels``.
    mixed_channels
        Channels of r, which is mixed with y instead of u; default: u itself.
    identity
        Start with zero weights (exactly u). Otherwise the 1×1 convolution has PyTorch's default initialisation.

    Raises
    ------
    ValueError
        Channels below 1.

    References
    ----------
    SDN, arXiv 2302.02057, section 3 (feature fusion); the residual form is ours.

    Examples
    --------
    >>> import torch
    >>> u, y = torch.rand(1, 8, 4, 4), torch.rand(1, 8, 4, 4)
    >>> torch.equal(FeatureFusion(8)(u, y), u)
    True
    """

    def __init__(
        self,
        channels: int,
        response_channels: int | None = None,
        mixed_channels: int | None = None,
        *,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.mixed = channels if mixed_channels is None else mixed_channels
        response = channels if response_channels is None else response_channels
        for name, count in (("channels", channels), ("mixed_channels", self.mixed), ("response_channels", response)):
            whole(name, count)
        self.mix = nn.Conv2d(self.mixed + response, channels, 1)
        if identity:
            nn.init.zeros_(self.mix.weight)
            assert self.mix.bias is not None
            nn.init.zeros_(self.mix.bias)

    def forward(self, u: Tensor, y: Tensor, r: Tensor | None = None) -> Tensor:
        """Return f (B, C, H, W); y (B, C_y, any, any) is brought to the grid of u bilinearly, r has it."""
        W_r, W_y = self.mix.weight.split([self.mixed, self.mix.in_channels - self.mixed], dim=1)
        return u + F.conv2d(u if r is None else r, W_r, self.mix.bias) + resize(F.conv2d(y, W_y), u)
