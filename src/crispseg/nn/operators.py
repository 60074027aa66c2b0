"""What can stand in the operator's place inside a Semantic Diffusion Network: SDC itself and its controls.

Each entry of ``OPERATORS`` makes a module with ``forward(u, v) -> y``, y with the channels and the grid of u. The
controls have W of the same shape, so that a gain of ``sdn`` over ``conv`` is not just more weights. Between ``conv``
and S ≡ 1 (``central``) stand two that tell why a difference helps:

    conv        y = conv(zero-pad(u), W)
    zero-start  the same; W starts with kernels that sum to zero, and may leave them
    held        y = conv(zero-pad(u), W′),        W′ = W but W′_0 = W_0 − Σ_q W_q, in every forward
    central     y = conv(replicate-pad(u), W′)

Beside them stand rivals that are no difference at all, learned upsampling (``resampling``): ``dysample``, ``carafe``.

One set of options serves all of them: a control does not look at those that its operator has no use for. All names and
values are checked all the same.

Not here: fusion, norm and the neck.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import nearest
from crispseg.nn.diffusion import DiffusionSteps
from crispseg.nn.options import OPTIONS, check_names, check_values
from crispseg.nn.resampling import carafe, dysample
from crispseg.nn.sdc import SemanticDifferenceConv2d
from crispseg.ops.semantic_difference.convolution import zero_sum


class PlainConv2d(nn.Conv2d):
    """A convolution of u that does not look at the guide: the control ``conv``."""

    def forward(self, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(u)


class HeldConv2d(PlainConv2d):
    """A convolution of u whose kernels sum to zero: the control ``held``. Zero-padded; it ignores the guide."""

    def forward(self, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        return self._conv_forward(u, zero_sum(self.weight), self.bias)


def sdn(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """Semantic Difference Convolution with ``options`` of :class:`SemanticDifferenceConv2d`."""
    return SemanticDifferenceConv2d(channels, channels, guide_channels=guide_channels, **options)


def central(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """The control S ≡ 1: central-difference convolution (θ = 1). Every neighbour counts fully, and no guide is used."""
    check_values(channels, channels, **options)
    return SemanticDifferenceConv2d(channels, channels, **_geometry(options), similarity="one")


def conv(channels: int, guide_channels: int, *, kind: type[PlainConv2d] = PlainConv2d, **options: Any) -> nn.Module:
    """The control of equal weights: a plain convolution of the same size. ``kind``: its class."""
    check_values(channels, channels, least_kernel=1 if kind is PlainConv2d else 3, **options)
    geometry = {"kernel_size": 3, "dilation": 1, **_geometry(options)}
    padding = geometry["kernel_size"] // 2 * geometry["dilation"]
    return kind(channels, channels, **geometry, padding=padding, bias=False)


def zero_start(channels: int, guide_channels: int, **options: Any) -> nn.Module:
    """A plain convolution whose kernels only start at zero sum."""
    check_values(channels, channels, **options)
    module = conv(channels, guide_channels, **options)
    assert isinstance(module, PlainConv2d)
    with torch.no_grad():
        module.weight.copy_(zero_sum(module.weight))
    return module


def diffusion(channels: int, guide_channels: int, *, steps: int = 4, step: float = 0.25, **options: Any) -> nn.Module:
    """The control that SDN replaces: ``steps`` explicit steps of semantic diffusion, unrolled, without weights."""
    check_values(channels, channels, **options)
    chosen = {key: options[key] for key in ("similarity", "scale", "contrast") if key in options}
    return DiffusionSteps(channels, guide_channels, steps=steps, step=step, **chosen)


def _geometry(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("kernel_size", "dilation", "groups") if key in options}


OPERATORS: dict[str, Callable[..., nn.Module]] = {
    "sdn": sdn,
    "conv": conv,
    "zero-start": zero_start,
    "held": partial(conv, kind=HeldConv2d),
    "central": central,
    "diffusion": diffusion,
    "diffusion-1": partial(diffusion, steps=1),
    "diffusion-16": partial(diffusion, steps=16),
    "dysample": dysample,
    "carafe": carafe,
}
_MORE = {"diffusion": ("steps", "step"), "diffusion-1": ("step",), "diffusion-16": ("step",)}
NEEDS_GUIDE: frozenset[str] = frozenset({"sdn", "diffusion", "diffusion-1", "diffusion-16"})
"""Operators that look at v, unless S ≡ 1: see :func:`needs_guide`."""


def make_operator(operator: str, channels: int, guide_channels: int, options: dict[str, Any]) -> nn.Module:
    """Make the operator of that name. ValueError for a name, or an option's name or value, that there is not."""
    if operator not in OPERATORS:
        raise ValueError(f"no operator {operator!r}{nearest(operator, OPERATORS)}")
    check_names(operator, options, (*OPTIONS, *_MORE.get(operator, ())))
    return OPERATORS[operator](channels, guide_channels, **options)


def needs_guide(operator: str, similarity: str = "charbonnier") -> bool:
    """Whether the operator looks at v; where it does not, a neck makes no guide, which would get no gradient.

    >>> needs_guide("sdn"), needs_guide("sdn", "one"), needs_guide("conv")
    (True, False, False)
    """
    return operator in NEEDS_GUIDE and similarity != "one"
