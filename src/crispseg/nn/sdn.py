"""``SemanticDiffusion``: one learnable step of semantic diffusion, SDN(u, v) = u + Conv1×1([u ; SDC(u, v)]).

Not here: where its guide comes from (``neck``, and ``crispseg.models`` for the decoder placement).
"""

from typing import Any

from torch import Tensor, nn

from crispseg.nn.fusion import FeatureFusion
from crispseg.nn.operators import make_operator
from crispseg.nn.options import whole


class SemanticDiffusion(nn.Module):
    """The Semantic Diffusion Network: sharpen u where the guide v sees a boundary.

        SDN(u, v) = u + Conv1×1([u ; ReLU(BN(SDC(u, v)))])

    Exactly u at the start (``identity``), so that it can be put into a trained network. With ``width`` N < C the work
    is done in N channels, with a 1×1 convolution R before it; u itself still passes whole:

        SDN(u, v) = u + Conv1×1([r ; ReLU(BN(SDC(r, v)))]),   r = R u

    Parameters
    ----------
    channels
        Channels C of u and of the result.
    guide_channels
        Channels of v; default C.
    operator
        ``"sdn"``, or a control in its place: ``"conv"`` (plain convolution), ``"zero-start"`` (its kernels start at
        zero sum), ``"held"`` (they are held to it), ``"central"`` (S ≡ 1), ``"diffusion"`` (the iterative solver).
        Or a rival: ``"dysample"``, ``"carafe"`` (learned upsampling).
    width
        N, the most channels that the operator works in; None: C. Weights then grow as C·N + N², not as C².
    norm
        Batch norm and ReLU on y before fusion, as public re-implementations have it. Without, y goes in as it is.
    identity
        Start as the identity.
    options
        Passed on to the operator: ``kernel_size``, ``dilation``, ``groups``, ``similarity``, ``scale``,
        ``initial_scale``, ``contrast``, ``guide_norm``, ``impl``; to ``"diffusion"`` also ``steps`` and ``step``. All
        are checked; a control does not look at those that it has no use for.

    Raises
    ------
    ValueError
        No operator of that name, or no option (the nearest is offered); a value out of range; a ``width`` below 1.

    References
    ----------
    SDN, arXiv 2302.02057, section 3; ``width`` is ours.

    Examples
    --------
    >>> import torch
    >>> u, v = torch.rand(2, 16, 12, 12), torch.rand(2, 24, 6, 6)
    >>> torch.equal(SemanticDiffusion(16, 24)(u, v), u)
    True
    """

    def __init__(
        self,
        channels: int,
        guide_channels: int | None = None,
        *,
        operator: str = "sdn",
        width: int | None = None,
        norm: bool = True,
        identity: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        whole("channels", channels)
        guide_channels = channels if guide_channels is None else guide_channels
        whole("guide_channels", guide_channels)
        inner = inner_width(channels, width)
        self.reduce = nn.Conv2d(channels, inner, 1, bias=False) if inner < channels else nn.Identity()
        self.operator = make_operator(operator, inner, guide_channels, options)
        self.norm = nn.Sequential(nn.BatchNorm2d(inner), nn.ReLU()) if norm else nn.Identity()
        self.fusion = FeatureFusion(channels, inner, inner, identity=identity)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Return SDN(u, v), the shape of u (B, C, H, W); v is (B, D, any, any)."""
        r = self.reduce(u)
        return self.fusion(u, self.norm(self.operator(r, v)), r)


def inner_width(channels: int, width: int | None) -> int:
    """Channels that a map of ``channels`` is worked on in. ValueError for a ``width`` below 1.

    >>> inner_width(960, 128), inner_width(40, 128), inner_width(960, None)
    (128, 40, 960)
    """
    if width is not None and (not isinstance(width, int) or width < 1):
        raise ValueError(f"width must be at least 1, or None, found {width!r}")
    return channels if width is None else min(width, channels)
