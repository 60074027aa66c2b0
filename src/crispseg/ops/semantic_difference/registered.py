"""The fast implementations as one operator of torch, ``crispseg::semantic_difference``, with its derivative.

Registered because a loop over tiles cannot be traced: ``torch.compile`` sees one node, of any
shape, and compiles nothing again when the shape changes. Only u, v, W and λ are kept for backward. A derivative of the
derivative is taken from the reference, which autograd can differentiate as often as one likes.

Not here: what is computed (``tiled``, ``fused``), and the checks of the arguments (``api``).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crispseg.ops.semantic_difference import fused, native, reference, tiled
from crispseg.ops.semantic_difference.form import Form


@torch.library.custom_op("crispseg::semantic_difference", mutates_args=())
def semantic_difference(
    u: Tensor,
    v: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    similarity: str,
    contrast: bool,
    dilation: int,
    groups: int,
    impl: str,
) -> Tensor:
    """Return y; arguments as checked by ``api``, ``scale`` None for 1."""
    module, form = _implementation(u, v, weight, similarity, contrast, dilation, groups, impl)
    return module.forward(u, v, weight, scale, form)


@torch.library.custom_op("crispseg::semantic_difference_backward", mutates_args=())
def semantic_difference_backward(
    g: Tensor,
    u: Tensor,
    v: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    similarity: str,
    contrast: bool,
    dilation: int,
    groups: int,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ∂u, ∂v, ∂W and ∂λ (of no elements where there is no λ)."""
    module, form = _implementation(u, v, weight, similarity, contrast, dilation, groups, impl)
    du, dv, dweight, dscale = module.backward(g, u, v, weight, scale, form)
    return du, dv, dweight, u.new_empty(0) if dscale is None else dscale


@semantic_difference.register_fake
def _(u: Tensor, v: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return tiled.empty_result(u, weight)


@semantic_difference_backward.register_fake
def _(
    g: Tensor, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dweight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return (
        torch.empty_like(u),
        torch.empty_like(v),
        dweight,
        u.new_empty(0) if scale is None else torch.empty_like(scale),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    tensors, no_gradient = ctx.saved_tensors, (None,) * len(ctx.options)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (g, *tensors) if x is not None) and _is_eager(g):
        return (*_differentiable(g, tensors, ctx.options, ctx.needs_input_grad), *no_gradient)
    du, dv, dweight, dscale = semantic_difference_backward(g, *tensors, *ctx.options)
    return du, dv, dweight, None if tensors[3] is None else dscale, *no_gradient


semantic_difference.register_autograd(_backward, setup_context=_keep)


def _differentiable(
    g: Tensor, tensors: tuple[Tensor | None, ...], options: tuple[Any, ...], needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """The same gradients with a graph of their own, for ``create_graph=True``."""
    u, v, weight, scale = tensors
    similarity, contrast, dilation, groups, _ = options
    assert u is not None and v is not None and weight is not None
    y = reference.semantic_difference(
        u,
        v,
        weight,
        similarity=similarity,
        scale=1.0 if scale is None else scale,
        contrast=contrast,
        dilation=dilation,
        groups=groups,
    )
    wanted = [x for x, need in zip(tensors, needed) if need and x is not None]
    found = iter(torch.autograd.grad(y, wanted, g, create_graph=True, allow_unused=True, materialize_grads=True))
    return [next(found) if need and x is not None else None for x, need in zip(tensors, needed)]


def _is_eager(x: Tensor) -> bool:
    """Not while AOTAutograd traces with fake tensors: it has grad mode on, but wants the fast operator."""
    return type(x) is Tensor and not torch.compiler.is_compiling()


def _implementation(
    u: Tensor, v: Tensor, weight: Tensor, similarity: Any, contrast: bool, dilation: int, groups: int, impl: str
) -> tuple[Any, Form]:
    """The module that does the work, and the form it is given. Raises ValueError if ``impl`` has not got that form."""
    form = Form(
        similarity=similarity, contrast=contrast, kernel_size=weight.shape[-1], dilation=dilation, groups=groups
    )
    if impl == "auto":
        return tiled, replace(form, native=native.serves(u, v, form) and native.library() is not None)
    found = f"found {similarity}, groups={groups}, {u.dtype} and {v.dtype} on {u.device}"
    if impl == "triton" and not fused.serves(u, form):
        raise ValueError(f"impl 'triton' is for charbonnier and one, groups=1, 32 bits or less; {found}")
    if impl == "native" and not native.serves(u, v, form):
        raise ValueError(f"impl 'native' is for charbonnier, gaussian and cosine, float32, on the CPU; {found}")
    return (fused, form) if impl == "triton" else (tiled, replace(form, native=impl == "native"))
