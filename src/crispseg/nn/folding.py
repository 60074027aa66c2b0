"""``fold``: for inference, operators that look at no guide become plain convolutions, their batch norms with them.

Not here: operators with S ≠ 1, for which no convolution can stand.
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import skip_init

from crispseg.nn.fusion import FeatureFusion
from crispseg.nn.operators import HeldConv2d, PlainConv2d
from crispseg.nn.sdc import SemanticDifferenceConv2d
from crispseg.nn.sdn import SemanticDiffusion
from crispseg.ops.semantic_difference.convolution import zero_sum

Module = TypeVar("Module", bound=nn.Module)


class Residual(nn.Module):
    """u + y: what is left of the fusion once its 1×1 convolution is part of the operator."""

    def forward(self, u: Tensor, y: Tensor, r: Tensor | None = None) -> Tensor:
        """Return u + y."""
        return u + y


def fold(module: Module) -> Module:
    """Return a copy of ``module`` in which operators that look at no guide are plain convolutions, for inference.

    S ≡ 1 is y = conv(replicate-pad(u), W′), W′_0 = −Σ_{q≠0} W_q; the controls ``conv``, ``zero-start`` and ``held``
    are convolutions as they stand. Batch norm after one is scaled into its kernels, as ``torch.nn.utils.fusion`` does.
    Where neither norm nor ReLU follows (``norm=False``) and W is full, the 1×1 convolution of the fusion follows at
    once, and both become one k×k convolution. S ≠ 1 stays, as does everything else. The answer is the same to rounding.

    Parameters
    ----------
    module
        Any module in eval mode: a network, a model with an attached neck, a neck, an operator. It is not changed.

    Returns
    -------
    A copy of it. What was folded is a ``torch.nn.Conv2d``, so that its ``state_dict`` has other keys; what has hooks or
    parametrizations stays as it is.

    Raises
    ------
    ValueError
        ``module``, or a part of it, is in training mode, in which batch norm is no fixed scale.

    References
    ----------
    ``torch.nn.utils.fusion.fuse_conv_bn_eval``.

    Examples
    --------
    >>> import torch
    >>> from crispseg.nn import SemanticDiffusionNeck
    >>> neck = SemanticDiffusionNeck([8, 16], operator="central", identity=False).eval()
    >>> maps = [torch.rand(1, 8, 16, 16), torch.rand(1, 16, 8, 8)]
    >>> [torch.allclose(a, b, atol=1e-5) for a, b in zip(fold(neck)(maps), neck(maps))]
    [True, True]
    """
    for name, part in module.named_modules():
        if part.training:
            raise ValueError(f"fold is for inference, call .eval() first: {name or 'the module'} is in training mode")
    folded = copy.deepcopy(module)
    if _is_convolution(folded):
        return _as_convolution(folded)  # type: ignore[return-value]
    for part in list(folded.modules()):
        if type(part) is SemanticDiffusion and _is_convolution(part.operator):
            _fold_network(part)
    for part in list(folded.modules()):
        for name, child in list(part.named_children()):
            if _is_convolution(child) and type(child) is not PlainConv2d:
                setattr(part, name, _as_convolution(child))
    return folded


def _is_convolution(module: nn.Module) -> bool:
    """Whether :func:`_as_convolution` knows it; hooks may change what it does, and subclasses."""
    if _has_hooks(module):
        return False
    if type(module) is SemanticDifferenceConv2d:
        return module.similarity == "one"
    return type(module) in (PlainConv2d, HeldConv2d)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _as_convolution(module: nn.Module) -> PlainConv2d:
    if isinstance(module, SemanticDifferenceConv2d):
        W = zero_sum(_exact(module.weight)) * (not module.contrast)  # the contrast form, 1 − S, is 0
        return _convolution(W, None, module.dilation, module.groups, "replicate", module.weight)
    assert isinstance(module, PlainConv2d)
    W = _exact(module.weight)
    W = zero_sum(W) if isinstance(module, HeldConv2d) else W
    return _convolution(W, module.bias, module.dilation[0], module.groups, module.padding_mode, module.weight)


def _fold_network(network: SemanticDiffusion) -> None:
    """Fold in place: the operator with the norm that follows it, or with the fusion."""
    conv, norm, fusion = _as_convolution(network.operator), network.norm, network.fusion
    W, bias = _exact(conv.weight), conv.weight.new_zeros(conv.out_channels).double()
    if conv.bias is not None:
        bias = _exact(conv.bias)
    if type(norm) is nn.Sequential and not _has_hooks(norm) and isinstance(norm[0], _BatchNorm) and _is_fixed(norm[0]):
        bn = norm[0]
        mean, var, γ, β = (_exact(x) for x in (bn.running_mean, bn.running_var, bn.weight, bn.bias) if x is not None)
        factor = γ / (var + bn.eps).sqrt()
        W, bias = W * factor.view(-1, 1, 1, 1), β + (bias - mean) * factor
        network.norm = norm[1:]
    elif type(norm) is nn.Identity and not _has_hooks(norm) and _is_cheaper(conv, fusion):
        W_u, W_y = _exact(fusion.mix.weight).split([fusion.mixed, fusion.mix.in_channels - fusion.mixed], dim=1)
        W = torch.einsum("oy,yikl->oikl", W_y.flatten(1), W) + F.pad(W_u, [W.shape[-1] // 2] * 4)
        bias = W_y.flatten(1) @ bias
        if fusion.mix.bias is not None:
            bias = bias + _exact(fusion.mix.bias)
        network.fusion = Residual()  # type: ignore[assignment]
    network.operator = _convolution(W, bias, conv.dilation[0], conv.groups, conv.padding_mode, conv.weight)


def _is_fixed(norm: _BatchNorm) -> bool:
    """Whether the batch norm is a fixed scale and shift in eval mode, and no more."""
    return not _has_hooks(norm) and norm.running_var is not None and norm.weight is not None


def _is_cheaper(conv: nn.Conv2d, fusion: nn.Module) -> bool:
    """Whether one full k×k convolution costs less than two: not if the first is grouped, or works in fewer channels."""
    plain = type(fusion) is FeatureFusion and not _has_hooks(fusion) and type(fusion.mix) is nn.Conv2d
    return plain and conv.groups == 1 and conv.out_channels == fusion.mix.out_channels  # type: ignore[union-attr]


@torch.no_grad()
def _convolution(W: Tensor, bias: Tensor | None, dilation: int, groups: int, border: str, like: Tensor) -> PlainConv2d:
    """A convolution with these weights that keeps the size; number type and device are those of ``like``."""
    out, inner, k, _ = W.shape
    conv: PlainConv2d = skip_init(
        PlainConv2d,
        inner * groups,
        out,
        k,
        padding=k // 2 * dilation,
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
        padding_mode=border,
        device=like.device,
        dtype=like.dtype,
    )
    conv.weight.copy_(W)
    if bias is not None and conv.bias is not None:
        conv.bias.copy_(bias)
    return conv.eval().requires_grad_(like.requires_grad)


def _exact(x: Tensor) -> Tensor:
    return x.detach().double()
