"""What the operator costs in multiplications and additions, for ``torch.utils.flop_counter``, which cannot see inside.

    FlopCounterMode(custom_mapping=FLOPS)

Not registered with torch for good: importing its counter imports triton. Not here: the operator (``registered``).
"""

from collections.abc import Callable
from typing import Any

import torch

from crispseg.ops.semantic_difference import registered  # noqa: F401  the two operators below are its


def forward(u: torch.Size, v: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """The product with W, as torch counts a convolution's; the centre tap has none."""
    batch, _channels, height, width = u
    out, inner, k, _k = weight
    return 2 * batch * height * width * out * inner * (k * k - 1)


def backward(g: torch.Size, *shapes: Any, **__: Any) -> int:
    """Two products of that size: with the differences for ∂W, with W for the gradient of the differences."""
    return 2 * forward(*shapes[:3])


FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.crispseg.semantic_difference: forward,
    torch.ops.crispseg.semantic_difference_backward: backward,
}
