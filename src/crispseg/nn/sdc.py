"""``SemanticDifferenceConv2d``: the operator with its weights, its guide brought to the grid and channels of u.

Not here: the mathematics (``crispseg.ops``), fusion with u (``fusion``).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn.options import check_values, whole
from crispseg.ops import semantic_difference
from crispseg.similarity import PER_CHANNEL, Scale, SimilarityName


class SemanticDifferenceConv2d(nn.Module):
    """Semantic Difference Convolution with learnable weights W and, on request, a learnable edge scale λ.

        y_p = Σ_{q∈N(p)} W_{q−p} · [ S(v_p, v_q) ⊙ (u_q − u_p) ]

    The guide may have another resolution (it is resized bilinearly) and other channels (a 1×1 convolution projects it
    where S compares channel by channel; the projection runs on the guide's own, usually smaller, grid).

    Parameters
    ----------
    in_channels, out_channels, kernel_size, dilation, groups
        As in ``torch.nn.Conv2d``; ``kernel_size`` is odd, there is no bias and the size never changes.
    guide_channels
        Channels of v; default ``in_channels``.
    similarity, contrast, impl
        As in :func:`crispseg.semantic_difference`. With ``"one"`` v is not looked at.
    guide_norm
        Batch norm, without weights, on the projected guide: λ is then in its standard deviations.
    scale
        λ: a positive number, or ``"learned"`` for one λ = softplus(raw) a guide channel, starting at ``initial_scale``.
        Every parameter that the module has gets a gradient: where S has no λ none can be learned.

    Raises
    ------
    ValueError
        A value out of range; ``groups`` that do not divide the channels; an unknown name, and the nearest is offered;
        an option for which this S has no use: ``scale="learned"`` of ``cosine`` and ``one``, ``guide_norm`` of ``one``.

    References
    ----------
    SDN, arXiv 2302.02057, section 3.

    Examples
    --------
    >>> conv = SemanticDifferenceConv2d(16, 32, guide_channels=24, scale="learned")
    >>> conv(torch.rand(1, 16, 12, 12), torch.rand(1, 24, 6, 6)).shape
    torch.Size([1, 32, 12, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        guide_channels: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        similarity: SimilarityName = "charbonnier",
        scale: float | Literal["learned"] = 1.0,
        initial_scale: float = 1.0,
        contrast: bool = False,
        guide_norm: bool = False,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        check_values(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            dilation=dilation,
            groups=groups,
            similarity=similarity,
            scale=scale,
            initial_scale=initial_scale,
            contrast=contrast,
            guide_norm=guide_norm,
            impl=impl,
        )
        guide_channels = in_channels if guide_channels is None else guide_channels
        whole("guide_channels", guide_channels)
        self.similarity, self.contrast, self.impl = similarity, contrast, impl
        self.dilation, self.groups = dilation, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

        project = similarity in PER_CHANNEL and guide_channels != in_channels
        self.guide_projection = nn.Conv2d(guide_channels, in_channels, 1, bias=False) if project else nn.Identity()
        inner = in_channels if project else guide_channels
        self.guide_norm = nn.BatchNorm2d(inner, affine=False) if guide_norm else nn.Identity()

        self.raw_scale: nn.Parameter | None = None
        self.fixed_scale = 1.0
        if scale == "learned":
            raw = initial_scale + math.log(-math.expm1(-initial_scale))  # softplus(raw) = initial_scale
            self.raw_scale = nn.Parameter(torch.full((inner,), raw))
        else:
            self.fixed_scale = float(scale)

    @property
    def scale(self) -> Scale:
        """λ, in units of the (projected) guide: a number, or (D,) if it is learned."""
        return self.fixed_scale if self.raw_scale is None else F.softplus(self.raw_scale)

    def guide(self, u: Tensor, v: Tensor) -> Tensor:
        """Return what S compares: v projected, normalised and on the grid of u, (B, D, H, W); u where S ≡ 1."""
        if self.similarity == "one":
            return u
        return resize(self.guide_norm(self.guide_projection(v)), u)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Return y (B, C_out, H, W) for features u (B, C, H, W) and a guide v (B, D, any, any)."""
        return semantic_difference(
            u,
            self.guide(u, v),
            self.weight,
            similarity=self.similarity,
            scale=self.scale,
            contrast=self.contrast,
            dilation=self.dilation,
            groups=self.groups,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        out, inner, k, _ = self.weight.shape
        scale = self.fixed_scale if self.raw_scale is None else "learned"
        shape = f"{inner * self.groups}, {out}, {k}"
        return f"{shape}, similarity={self.similarity!r}, scale={scale!r}, contrast={self.contrast}"


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bring ``x`` to the grid of ``like``: bilinear, ``align_corners=False``; the same tensor if it is there.

    A graph for sizes that are not known yet resizes unless the two sizes are one expression: to ask whether they are
    equal would tie the graph to the answer for the example.
    """
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # takes its time to import

        there = all(statically_known_true(a == b) for a, b in zip(x.shape[-2:], like.shape[-2:], strict=True))
    else:
        there = not torch._C._get_tracing_state() and x.shape[-2:] == like.shape[-2:]
    return x if there else F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
