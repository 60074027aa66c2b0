"""Large maps on the CPU, strip by strip: the temporaries of a step then stay in the cache instead of going to memory.

The strips overlap by as many rows as a pixel's result depends on, so the numbers are those of the whole map.
Not here: what is computed in a strip.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

STRIP_ELEMENTS = 2**18
"""Numbers a strip of u holds, about: 1 MiB in float32. Smaller strips overlap more, larger ones miss the cache."""


def pays(u: Tensor, inputs: Iterable[Tensor | None] = ()) -> bool:
    """Whether to go strip by strip: the map is large, on the CPU, and no gradient is recorded."""
    recorded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, *inputs))
    return u.device.type == "cpu" and u.numel() > STRIP_ELEMENTS and not recorded


def in_strips(u: Tensor, reach: int, part: Callable[[int, int], Tensor]) -> Tensor:
    """Put a map like u together from ``part(top, bottom)``, the result for rows top … bottom − 1 of u alone.

    Each strip is computed with ``reach`` rows more on either side, which are dropped, unless the map ends there.
    """
    height = u.shape[-2]
    rows = max(2 * reach, STRIP_ELEMENTS * height // u.numel(), 1)
    y = torch.empty_like(u)
    for start in range(0, height, rows):
        stop = min(height, start + rows)
        top, bottom = max(0, start - reach), min(height, stop + reach)
        y[..., start:stop, :] = part(top, bottom)[..., start - top : stop - top, :]
    return y
