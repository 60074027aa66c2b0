"""The fast implementations as one operator of torch, ``crispseg::semantic_difference``, with its derivative.

Registered because a loop over tiles cannot be traced: ``torch.compile`` sees one node, of any
shape, and compiles nothing again when the shape changes. Only u, v, W and λ are kept for backward. A derivative of the
derivative is that of the reference (``derivative``).

Not here: what is computed (``tiled``, ``slabs``), and the checks of the arguments (``api``).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crispseg.ops.semantic_difference import derivative, native, reference, slabs, tiled
from crispseg.ops.semantic_difference.form import Form
from crispseg.similarity import SCALED


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
    with torch.autocast(u.device.type, enabled=False):  # `api` has cast; a float16 product is summed in float32
        return _call("forward", (u, v, weight, scale), similarity, contrast, dilation, groups, impl)


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
    with torch.autocast(u.device.type, enabled=False):
        tensors = g, u, v, weight, scale
        du, dv, dweight, dscale = _call("backward", tensors, similarity, contrast, dilation, groups, impl)
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
    similarity, contrast, dilation, groups, _ = ctx.options
    # A λ that plays no part has no gradient at all, as in the reference: an optimizer can tell None from zeros.
    needed = (*ctx.needs_input_grad[:3], ctx.needs_input_grad[3] and similarity in SCALED)
    if derivative.needed_again(g, *tensors):
        form = {"similarity": similarity, "contrast": contrast, "dilation": dilation, "groups": groups}

        def function(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
            return reference.semantic_difference(u, v, weight, scale=1.0 if scale is None else scale, **form)

        return *derivative.gradients(function, tensors, needed, g), *no_gradient
    du, dv, dweight, dscale = semantic_difference_backward(g, *tensors, *ctx.options)
    return du, dv, dweight, dscale if needed[3] else None, *no_gradient


semantic_difference.register_autograd(_backward, setup_context=_keep)


def _call(
    direction: str,
    tensors: tuple[Tensor | None, ...],
    similarity: Any,
    contrast: bool,
    dilation: int,
    groups: int,
    impl: str,
) -> Any:
    """Run ``forward`` or ``backward`` of the implementation that ``impl`` names or, for auto, the fastest there is."""
    u, v, weight = tensors[-4:-1]
    assert u is not None and v is not None and weight is not None
    form = Form(
        similarity=similarity, contrast=contrast, kernel_size=weight.shape[-1], dilation=dilation, groups=groups
    )
    if impl == "auto" and u.is_cuda and slabs.serves(u, v, weight) and slabs.why_not(u.device) is None:
        try:
            return getattr(slabs, direction)(*tensors, form)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever triton, its compiler or the driver raises
            slabs.give_up(u.device, error)
    module, form = _implementation(u, v, weight, form, impl)
    return getattr(module, direction)(*tensors, form)


def _implementation(u: Tensor, v: Tensor, weight: Tensor, form: Form, impl: str) -> tuple[Any, Form]:
    """The module that does the work, and the form it is given. Raises ValueError if ``impl`` has not got that form."""
    if impl == "auto":
        return tiled, replace(form, native=native.serves(u, v, form) and native.library() is not None)
    found = f"found {form.similarity}, groups={form.groups}, {u.dtype} and {v.dtype} on {u.device}"
    if impl == "triton" and not slabs.serves(u, v, weight):
        raise ValueError(f"impl 'triton' is for numbers of 32 bits or less; {found}")
    if impl == "native" and not native.serves(u, v, form):
        raise ValueError(f"impl 'native' is for charbonnier, gaussian and cosine, float32, on the CPU; {found}")
    return (slabs, form) if impl == "triton" else (tiled, replace(form, native=impl == "native"))
