"""Derivatives that can be differentiated again: of the same formula in plain operators, whose graph autograd knows.

The fast implementations have a backward pass of their own, and that pass has none. ``create_graph=True``, torch.func
and forward mode need one, so they get the derivative of the plain formula.

Not here: the formula (``reference``, ``convolution``).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work: both see through plain operators alone."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def needed_again(g: Tensor, *tensors: Tensor | None) -> bool:
    """Whether a backward pass has to leave a graph. Asked inside of it, of ∂loss/∂y and of what it has kept."""
    if torch.compiler.is_compiling() or isinstance(g, FakeTensor | FunctionalTensor):
        return False  # AOTAutograd traces with grad mode on, but wants the fast backward pass
    if transformed():
        return True
    return torch.is_grad_enabled() and any(x.requires_grad for x in (g, *tensors) if x is not None)


def gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], needed: Sequence[bool], g: Tensor
) -> list[Tensor | None]:
    """Return the gradient of ⟨g, function(*tensors)⟩ for each tensor that is ``needed``, with a graph of its own.

    ``tensors`` may depend on one another (a guide is made of features). Each is therefore replaced by an alias, which
    nothing else depends on: the gradient of one would otherwise hold the way through another, and autograd adds that
    itself.
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [x if x is None else x.view_as(x) for x in tensors]
        wanted = [x for x, need in zip(aliases, needed) if need and x is not None]
        y = function(*aliases)
        found = iter(torch.autograd.grad(y, wanted, g, create_graph=keep, allow_unused=True, materialize_grads=True))
    return [next(found) if need and x is not None else None for x, need in zip(aliases, needed)]
