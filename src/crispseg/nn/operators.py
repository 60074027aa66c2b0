"""What can stand in the operator's place inside a Semantic Diffusion Network: SDC itself and its two controls.

Each entry of ``OPERATORS`` makes a module with ``forward(u, v) -> y``, y with the channels and the grid of u. The
controls have W of the same shape, so that a gain of ``sdn`` over ``conv`` is not just more weights.

Not here: fusion, norm and the neck.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from crispseg.nn.diffusion import DiffusionSteps
from crispseg.nn.sdc import SemanticDifferenceConv2d


class PlainConv2d(nn.Conv2d):
    """A convolution of u that does not look at the guide: the control ``conv``."""

    def forward(self, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(u)


def sdn(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """Semantic Difference Convolution with ``options`` of :class:`SemanticDifferenceConv2d`."""
    return SemanticDifferenceConv2d(channels, channels, guide_channels=guide_channels, **options)


def central(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """The control S ≡ 1: central-difference convolution (θ = 1), blind to the guide."""
    return SemanticDifferenceConv2d(channels, channels, **_geometry(options), similarity="one")


def conv(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """The control of equal weights: a plain convolution of the same size."""
    geometry = {"kernel_size": 3, "dilation": 1, **_geometry(options)}
    padding = geometry["kernel_size"] // 2 * geometry["dilation"]
    return PlainConv2d(channels, channels, **geometry, padding=padding, bias=False)


def diffusion(channels: int, guide_channels: int, *, steps: int = 4, **options: Any) -> nn.Module:
    """The control that SDN replaces: ``steps`` explicit steps of semantic diffusion, unrolled, without weights."""
    chosen = {key: options[key] for key in ("similarity", "scale", "contrast") if key in options}
    return DiffusionSteps(channels, guide_channels, steps=steps, **chosen)


def _geometry(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("kernel_size", "dilation", "groups") if key in options}


OPERATORS: dict[str, Callable[..., nn.Module]] = {
    "sdn": sdn,
    "conv": conv,
    "central": central,
    "diffusion": diffusion,
    "diffusion-1": partial(diffusion, steps=1),
    "diffusion-16": partial(diffusion, steps=16),
}
NEEDS_GUIDE: frozenset[str] = frozenset({"sdn", "diffusion", "diffusion-1", "diffusion-16"})
"""Operators that look at v; for the others the neck builds no guide."""
