"""How wide a neck is by default: as wide as a tenth of the host's parameters and a fifth of its operations allow.

A fifth in the dry run, so that it stays below a quarter at any size. Not here: what the neck is made of.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from crispseg.models.attaching.dry_run import call, undisturbed

Width = int | Literal["auto"] | None
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
PARAMETERS, OPERATIONS = 0.10, 0.20


def widest(
    model: nn.Module, example: Any, most: int, make: Callable[[int], nn.Module], run: Callable[[nn.Module], Any]
) -> int:
    """Return the widest of ``WIDTHS``, up to ``most`` channels, that the host can afford; the least if it affords none.

    ``make(width)`` makes the neck, ``run(neck)`` calls it on maps of the dry run's sizes.
    """
    parameters = sum(p.numel() for p in model.parameters())
    operations = _operations(lambda: call(model, example), model)
    chosen = min(WIDTHS[0], most)
    with torch.random.fork_rng():
        for width in WIDTHS:
            neck = make(width)
            weights, costs = sum(p.numel() for p in neck.parameters()), _operations(functools.partial(run, neck), neck)
            if width > most or weights > PARAMETERS * parameters or costs > OPERATIONS * operations:
                break
            chosen = width
    return chosen


def measured(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the neck that is measured: guided, of the same geometry.

    So the width is one whatever the operator, and a control has the weights of what it is compared with.
    """
    geometry = {key: options[key] for key in ("kernel_size", "dilation", "groups", "norm") if key in options}
    return {"operator": "sdn", "similarity": "gaussian", **geometry}


def _operations(function: Callable[[], Any], model: nn.Module) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # loads triton: not when crispseg is imported

    from crispseg.ops.semantic_difference.flops import FLOPS

    # With gradients: some hosts enable them themselves, and the counter then expects a graph.
    counting = FlopCounterMode(display=False, custom_mapping=FLOPS)
    with undisturbed(model), torch.enable_grad(), counting as counter:
        function()
    return counter.get_total_flops()
