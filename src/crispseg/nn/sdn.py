"""``SemanticDiffusion``: one learnable step of semantic diffusion, SDN(u, v) = u + Conv1×1([u ; SDC(u, v)]).

Not here: where its guide comes from (``neck``, and ``crispseg.models`` for the decoder placement).
"""

from typing import Any

from torch import Tensor, nn

from crispseg.errors import nearest
from crispseg.nn.fusion import FeatureFusion
from crispseg.nn.operators import OPERATORS


class SemanticDiffusion(nn.Module):
    """The Semantic Diffusion Network: sharpen u where the guide v sees a boundary.

        SDN(u, v) = u + Conv1×1([u ; ReLU(BN(SDC(u, v)))])

    Exactly u at the start (``identity``), so that it can be put into a trained network.

    Parameters
    ----------
    channels
        Channels C of u and of the result.
    guide_channels
        Channels of v; default C.
    operator
        ``"sdn"``, or a control in its place: ``"conv"`` (plain convolution), ``"central"`` (S ≡ 1).
    norm
        Batch norm and ReLU on y before fusion, as public re-implementations have it. Without, y goes in as it is.
    identity
        Start as the identity.
    options
        Passed on to the operator: ``kernel_size``, ``dilation``, ``groups``, ``similarity``, ``scale``,
        ``initial_scale``, ``contrast``, ``impl``.

    Raises
    ------
    ValueError
        No operator of that name; options that do not fit it.

    References
    ----------
    SDN, arXiv 2302.02057, section 3.

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
        norm: bool = True,
        identity: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if operator not in OPERATORS:
            raise ValueError(f"no operator {operator!r}{nearest(operator, OPERATORS)}")
        self.operator = OPERATORS[operator](channels, guide_channels or channels, **options)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.Identity()
        self.fusion = FeatureFusion(channels, identity=identity)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Return SDN(u, v), the shape of u (B, C, H, W); v is (B, D, any, any)."""
        return self.fusion(u, self.norm(self.operator(u, v)))
