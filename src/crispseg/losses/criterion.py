"""``Criterion``: the weighted sum of losses that a run gives to its network; the table of losses by name.

Not here: the losses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor

from crispseg.losses.active_boundary import active_boundary
from crispseg.losses.boundary import boundary
from crispseg.losses.boundary_dou import boundary_dou
from crispseg.losses.boundary_weighted import boundary_weighted, pixel_weights
from crispseg.losses.cross_entropy import cross_entropy, ohem_cross_entropy
from crispseg.losses.dice import dice
from crispseg.losses.focal import focal
from crispseg.losses.lovasz import lovasz
from crispseg.losses.rmi import rmi
from crispseg.losses.skeleton_recall import skeleton_recall
from crispseg.names import LossName

LOSSES: dict[LossName, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "boundary_weighted": boundary_weighted,
    "boundary": boundary,
    "active_boundary": active_boundary,
    "boundary_dou": boundary_dou,
    "rmi": rmi,
    "lovasz": lovasz,
    "dice": dice,
    "focal": focal,
    "skeleton_recall": skeleton_recall,
}
"""Each takes logits (B, K, H, W), target (B, H, W) and ``ignore_index``, and returns a scalar."""


def _one_each(target: Tensor, valid: Tensor) -> Tensor:
    return valid


MASSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _one_each,
    "boundary_weighted": pixel_weights,
    "boundary": _one_each,
    "focal": _one_each,
}
"""The weight of each pixel in the mean that a loss is: of labels (void as 0), and where they count. Others are none."""

Masses = dict[LossName, float]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """The loss that a run gives to its network: ``criterion(logits, target)``, and the weight of auxiliary heads.

        L = Σ_name weights[name] · LOSSES[name](logits, target)

    kind: the form of the cross-entropy in it, ``"cross_entropy"`` or ``"ohem"``; class_weights: of the cross-entropy,
    (K,) on the logits' device, or None. A loss of weight 0 is not computed. masses: the sum of the pixels' weights of
    each loss in the batch that the target is a part of; None if the target is all of it.
    """

    kind: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ignore_index: int = 255
    class_weights: Tensor | None = None
    aux_weight: float = 0.4
    weights: Mapping[LossName, float] = field(default_factory=lambda: {"cross_entropy": 1.0})
    masses: Mapping[LossName, float] | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        terms = [
            weight * self._loss(name)(logits, target, ignore_index=self.ignore_index)
            for name, weight in self.weights.items()
            if weight
        ]
        if self.masses is not None:
            names = [name for name, weight in self.weights.items() if weight]
            terms = [self._mass(name, target) / self.masses[name] * term for name, term in zip(names, terms)]
        return reduce(add, terms)

    def in_part_of(self, whole: Tensor, over: Callable[[Masses], Masses] = dict) -> "Criterion":
        """Return the criterion for parts of a batch: its losses of all parts add up to this one's of the batch.

        ``whole``: labels (B, H, W) of the batch, or of this process's share of it; ``over`` then turns the masses of
        the share into those of the batch. Each loss is a mean over pixels with weights w that the labels alone know, so
        L(batch) = Σ_parts (Σ_part w / Σ_batch w) · L(part). KeyError for a loss that is none.
        """
        return replace(self, masses=over({name: self._mass(name, whole) for name, w in self.weights.items() if w}))

    def _mass(self, name: LossName, target: Tensor) -> float:
        """Σ w of a loss over labels, never 0."""
        valid = target != self.ignore_index
        t = torch.where(valid, target, 0).long()
        w = MASSES[name](t, valid)
        if name == "cross_entropy" and self.class_weights is not None:
            w = w * self.class_weights[t]
        return max(w.sum().item(), torch.finfo(torch.float32).tiny)

    def _loss(self, name: LossName) -> Callable[..., Tensor]:
        if name != "cross_entropy":
            return LOSSES[name]
        function = ohem_cross_entropy if self.kind == "ohem" else cross_entropy
        return partial(function, class_weights=self.class_weights)
