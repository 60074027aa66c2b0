"""What depends on what in a traced forward: maps as calls give and take them, and gradients between them.

Not here: the dry run (``trace``), what is looked for by it (``classifier``, ``head``).
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from crispseg.models.attaching import maps
from crispseg.models.attaching.graft import Side
from crispseg.models.attaching.trace import Call, Trace, gradients


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """One map, at one side of one module."""

    module: str
    side: Side
    path: maps.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A map at one side of one call."""

    call: Call
    side: Side
    path: maps.Path
    tensor: Tensor

    @property
    def spot(self) -> Spot:
        return Spot(self.call.path, self.side, self.path)


def given(call: Call) -> list[Seen]:
    return [Seen(call, "output", path, t) for path, t in maps.find(call.gives)]


def taken(call: Call) -> list[Seen]:
    return [Seen(call, "input", path, t) for path, t in maps.find(call.takes)]


class Dependence:
    """How logits depend on tensors: gradients of a random sum of one channel, or of one pixel."""

    def __init__(self, total: Tensor, found: list[Seen]) -> None:
        distinct = {id(seen.tensor): seen.tensor for seen in found}
        self.gradients = dict(zip(distinct, gradients(total, list(distinct.values())), strict=True))

    def __call__(self, seen: Seen) -> Tensor | None:
        gradient = self.gradients.get(id(seen.tensor))
        return gradient if gradient is not None and bool(gradient.any()) else None


def of_one_class(run: Trace, logits: Tensor) -> tuple[Dependence, Any]:
    """Dependence of one class's logits, and whether a map is one of class channels: no channel reaches another's."""
    k = logits.shape[1] // 2
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(logits.shape[-2:], generator=generator).to(logits.device, logits.dtype)
    everything = [seen for call in run.ended for seen in (*taken(call), *given(call))]
    depends = Dependence((logits[:, k] * weight).sum(), everything)

    def is_of_classes(seen: Seen) -> bool:
        gradient = depends(seen)
        if gradient is None or gradient.shape[1] != logits.shape[1]:
            return False
        others = [c for c in range(gradient.shape[1]) if c != k]
        return not bool(gradient[:, others].any())

    return depends, is_of_classes


def of_one_pixel(run: Trace, logits: Tensor) -> Any:
    """Whether the logits depend on a map pixel by pixel: those of one pixel on no more than two by two."""
    height, width = logits.shape[-2:]
    everything = [seen for call in run.ended for seen in (*taken(call), *given(call))]
    weight = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)).to(logits.device, logits.dtype)
    depends = Dependence((logits[0, :, height // 2, width // 2] * weight).sum(), everything)

    def is_local(seen: Seen) -> bool:
        gradient = depends(seen)
        if gradient is None or min(gradient.shape[-2:]) < 3:
            return False
        where = gradient[0].abs().sum(0).nonzero()
        return bool(((where.amax(0) - where.amin(0)) < 2).all())

    return is_local


def random_sum(t: Tensor) -> Tensor:
    weight = torch.rand(t.shape, generator=torch.Generator().manual_seed(0)).to(t.device, t.dtype)
    return (t * weight).sum()
