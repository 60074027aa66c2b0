"""The two places of a neck: what is built there, and which taps run it.

Not here: where the places are (``border``, ``head``), how a module runs taps (``graft``).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from crispseg.models.attaching import budget, graft
from crispseg.models.attaching.budget import Width
from crispseg.models.attaching.dry_run import Found
from crispseg.models.attaching.graft import Neck, Side
from crispseg.models.attaching.head import Head
from crispseg.models.attaching.taps import AddToFeatures, AddToLogits, Keep, Refine
from crispseg.models.attaching.wire import Wire
from crispseg.models.refined import HeadRefiner
from crispseg.nn import SemanticDiffusionNeck
from crispseg.nn.sdn import inner_width

Options = Mapping[str, Any]


def at_border(
    model: nn.Module, example: Any, at: str, side: Side, found: Found, width: Width, options: Options
) -> None:
    """Refine the maps at one side of the submodule ``at``."""
    channels = list(found.channels)

    def make(width: int | None, options: Options = options) -> SemanticDiffusionNeck:
        return SemanticDiffusionNeck(channels, width=width, **options)

    def run(neck: nn.Module) -> None:
        neck([torch.empty(1, c, *size) for c, size in zip(channels, found.sizes, strict=True)])

    tried = functools.partial(make, options=budget.measured(options))
    chosen = budget.widest(model, example, max(channels), tried, run) if width == "auto" else width
    facts = {
        "place": "encoder",
        "at": at,
        "side": side,
        "paths": found.paths,
        "channels": channels,
        "options": {"width": chosen, **options},
    }
    module = model.get_submodule(at)
    neck = _made(Neck(make(chosen), facts), module, found)
    graft.check(module)
    graft.hold(module, neck)
    graft.tap(module, side, Refine(neck.body, found.paths))


def at_head(model: nn.Module, example: Any, head: Head, width: Width, options: Options) -> None:
    """Refine what the last classifier reads."""

    def make(width: int, options: Options = options) -> HeadRefiner:
        return HeadRefiner(
            head.channels,
            head.detail_channels,
            guide_channels=head.channels if head.logits is None else head.out,
            out=head.out,
            width=width,
            ratio=head.ratio,
            look=head.look,
            finer=head.finer,
            align_corners=head.align_corners,
            probabilities=head.logits is not None,
            **options,
        )

    f, d, z = head.sizes

    def run(refiner: nn.Module) -> None:
        guide = (head.channels, *f) if head.logits is None else (head.out, *z)
        refiner(*(torch.empty(1, *shape) for shape in ((head.channels, *f), (head.detail_channels, *d), guide)))

    if width == "auto":
        tried = functools.partial(make, options=budget.measured(options))
        chosen = budget.widest(model, example, head.channels, tried, run)
    else:
        chosen = inner_width(head.channels, width)
    facts = {
        "place": "head",
        **{name: dataclasses.astuple(spot) if spot else None for name, spot in _spots(head).items()},
        **({"training": head.training} if head.logits and head.training != head.logits.path else {}),
        "channels": [head.channels, head.detail_channels, head.out],
        "options": {"width": chosen, **options},
    }
    features = model.get_submodule(head.features.module)
    refiner = make(chosen)
    neck = _made(Neck(refiner, facts), features, head)
    wire = Wire()
    graft.hold(features, neck)
    graft.scope(model.get_submodule(head.scope), wire)
    detail = model.get_submodule(head.detail.module)
    graft.tap(detail, head.detail.side, Keep(wire, head.detail.path, "detail"))
    if head.logits is None:
        graft.tap(features, head.features.side, AddToFeatures(wire, head.features.path, refiner))
    else:
        graft.tap(features, head.features.side, Keep(wire, head.features.path, "features"))
        logits = model.get_submodule(head.logits.module)
        graft.tap(logits, head.logits.side, AddToLogits(wire, head.logits.path, head.training, refiner))


def _spots(head: Head) -> dict[str, Any]:
    return {"features": head.features, "logits": head.logits, "detail": head.detail}


def _made(neck: Neck, module: nn.Module, found: Found | Head) -> Neck:
    return neck.to(found.device, found.dtype).train(module.training)
