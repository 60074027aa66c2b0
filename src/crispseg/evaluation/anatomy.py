"""Error anatomy: what kind of error each wrong pixel is, and by how many px the boundary of two classes is displaced.

Every labelled pixel whose prediction differs from the truth has exactly one kind, the first that fits:

    missed      its true segment was not found: less than a tenth of it is predicted as its class
    invented    its predicted segment is not there: less than a tenth of it is truly of that class
    displaced   a pixel of the predicted class lies within d px (‖·‖_∞): the boundary was drawn on the wrong side of it
    interior    none of these: the wrong class, far from where it would be right

A segment is a connected piece of one class (``segments``). Objects come first, since all of a missed pole lies near its
boundary and yet no boundary was displaced. A whole object given another class is missed, not invented.

Between classes a and b the **signed displacement** is area over length, in px:

    δ_ab = (n_ab − n_ba) / L_ab

n_ab: displaced pixels of true class a predicted as b. L_ab: length of the true boundary between a and b, #cracks −
(1 − 1/√2) · #turns, which is exact for straight and for diagonal lines; a crack is a side shared by a pixel of a and
one of b, a turn a 2×2 block with three pixels of one and one of the other. δ_ab > 0: b has grown into a. |δ|_ab has
n_ab + n_ba on top: how far on the mean, whichever way.
A class has *grown* by the same with sums over its neighbours above and below.

What a kind **costs** is the mIoU that would be gained if its pixels alone were right, the rest left as it is: what
displaced pixels cost is the most that sharper boundaries can gain. Ours, after TIDE for detectors (Bolya et al., 2020).

Not here: pictures (``crispseg.report``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from crispseg.evaluation.segments import segments
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import band_width, near
from crispseg.metrics.scores import iou, mean_present, ratio
from crispseg.metrics.tally import joint_tally

KINDS = ("displaced", "interior", "missed", "invented")
RIGHT, DISPLACED, INTERIOR, MISSED, INVENTED = range(5)
FOUND = 0.1
"""The share of a segment that must be right for it to count as found."""


@dataclass(frozen=True)
class Anatomy:
    """Integers that add up over images.

    ``kinds`` (4, C, C + 1): wrong pixels by kind, true and predicted class (the last: no answer); ``labelled`` (C,)
    pixels of each true class; ``cracks`` and ``turns`` (C, C), symmetric: the true boundary of each class pair.
    """

    kinds: Tensor
    labelled: Tensor
    cracks: Tensor
    turns: Tensor

    @classmethod
    def zeros(cls, num_classes: int) -> "Anatomy":
        """Return the anatomy of no image."""
        c = num_classes
        return cls(*(torch.zeros(size, dtype=torch.int64) for size in ((4, c, c + 1), (c,), (c, c), (c, c))))

    def __add__(self, other: "Anatomy") -> "Anatomy":
        return Anatomy(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def length(self) -> Tensor:
        """Return L (C, C) in px."""
        return self.cracks - (1 - 1 / math.sqrt(2)) * self.turns

    def displacement(self) -> tuple[Tensor, Tensor]:
        """Return δ and |δ|, (C, C) in px; NaN where the two classes never touch. δ_ba = −δ_ab."""
        moved = self.kinds[DISPLACED - 1, :, :-1]
        length = self.length().clamp(min=0)
        return ratio(moved - moved.T, length), ratio(moved + moved.T, length)

    def growth(self) -> tuple[Tensor, Tensor]:
        """Return by how many px each class has grown over its whole boundary, and regardless of direction, (C,)."""
        moved, length = self.kinds[DISPLACED - 1, :, :-1], self.length().clamp(min=0).sum(0)
        gained, lost = moved.sum(0), moved.sum(1)
        return ratio(gained - lost, length), ratio(gained + lost, length)

    def cost(self) -> Tensor:
        """Return the mIoU that each kind of error costs, (4,) in the order of ``KINDS``; NaN if nothing is labelled."""

        def miou(wrong: Tensor) -> Tensor:
            right = self.labelled - wrong.sum(1)
            return mean_present(iou(torch.stack([right, right + wrong[:, :-1].sum(0), self.labelled])))

        wrong = self.kinds.sum(0)
        return torch.stack([miou(wrong - kind) for kind in self.kinds]) - miou(wrong)

    def summary(self, classes: Sequence[str], *, trainings: int = 1) -> dict[str, Any]:
        """Return shares of the labelled pixels, in all and per true class, costs and displacements, for JSON.

        ``trainings``: of how many trainings on the same images this is the sum; pixels and lengths are then of one.
        """
        wrong, pixels = self.kinds.sum(2), int(self.labelled.sum())
        signed, absolute = self.displacement()
        grown, drifted = self.growth()
        length = self.length()
        pairs = [(a, b) for a in range(len(classes)) for b in range(a + 1, len(classes)) if self.cracks[a, b] > 0]
        return {
            "labelled_pixels": pixels // trainings,
            "wrong": int(wrong.sum()) / pixels if pixels else None,
            **{kind: int(wrong[i].sum()) / pixels if pixels else None for i, kind in enumerate(KINDS)},
            "miou_cost": {kind: _finite(cost) for kind, cost in zip(KINDS, self.cost().tolist(), strict=True)},
            "per_class": {
                name: {
                    **{kind: int(wrong[i, c]) / int(self.labelled[c]) for i, kind in enumerate(KINDS)},
                    "grown_px": _finite(grown[c].item()),
                    "displaced_px": _finite(drifted[c].item()),
                }
                for c, name in enumerate(classes)
                if self.labelled[c] > 0
            },
            "displacement_px": [
                {
                    "from": classes[a],
                    "to": classes[b],
                    "signed": signed[a, b].item(),
                    "absolute": absolute[a, b].item(),
                    "boundary_px": length[a, b].item() / trainings,
                }
                for a, b in sorted(pairs, key=lambda pair: -length[pair].item())
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def error_kinds(
    pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = 255, *, d: int | None = None
) -> Tensor:
    """Return the kind of error of each pixel, uint8 (H, W): 0 right or void, then 1 + the index into ``KINDS``.

    Label maps (H, W); d in px, None: round(0.02 · diagonal), Boundary IoU's own. Raises as ``metrics.labels.codes``.

    >>> truth = torch.tensor([[0, 0, 0, 1, 1, 1]])
    >>> error_kinds(torch.tensor([[0, 0, 1, 1, 1, 1]]), truth, num_classes=2).tolist()
    [[0, 0, 1, 0, 0, 0]]
    """
    p, t = codes(pred, target, num_classes, ignore_index)
    return _kinds(p[0], t[0], num_classes, d)


def anatomy_counts(pred: Tensor, target: Tensor, num_classes: int, *, d: int | None = None) -> Anatomy:
    """Return the integers of one image from its codes (1, H, W)."""
    kinds = _kinds(pred[0], target[0], num_classes, d)
    c = num_classes
    table = joint_tally((kinds[None], 5), (target, c + 1), (pred, c + 1))[0, :, 1:]
    cracks, turns = _boundary(target, c)
    by_kind = torch.cat([table[1:, :, 1:], table[1:, :, :1]], dim=2)
    return Anatomy(by_kind.cpu(), table.sum((0, 2)).cpu(), cracks.cpu(), turns.cpu())


def _kinds(p: Tensor, t: Tensor, num_classes: int, d: int | None) -> Tensor:
    d = band_width(*t.shape) if d is None else d
    wrong = p != t
    kinds = wrong.to(torch.uint8) * INTERIOR
    for c in p[wrong].unique().tolist():
        if c:  # a pixel without an answer lies across no boundary
            kinds[wrong & (p == c) & near((t == c)[None], d)[0]] = DISPLACED
    for code, kind in ((p, INVENTED), (t, MISSED)):  # the later, the stronger
        number, count = segments(code)
        right = torch.bincount(number[~wrong], minlength=count)
        lost = right < FOUND * torch.bincount(number.flatten(), minlength=count)
        kinds[wrong & lost[number] & (code != 0)] = kind
    return kinds


def _boundary(t: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Cracks and turns of each class pair, (C, C) symmetric."""
    k = num_classes + 1
    cracks = torch.zeros(k, k, dtype=torch.int64, device=t.device)
    for dim in (-2, -1):
        n = t.shape[dim] - 1
        cracks += joint_tally((t.narrow(dim, 0, n), k), (t.narrow(dim, 1, n), k))[0]
    turns = torch.zeros_like(cracks)
    corner = torch.stack([t[:, y : t.shape[1] - 1 + y, x : t.shape[2] - 1 + x] for y in (0, 1) for x in (0, 1)])
    for odd in range(4):  # three alike, and this one not
        alike = corner[[i for i in range(4) if i != odd]]
        turn = (alike[0] == alike[1]) & (alike[0] == alike[2]) & (alike[0] != corner[odd])
        turns += joint_tally((alike[0] * turn, k), (corner[odd] * turn, k))[0]
    both = [(x + x.T)[1:, 1:].clone().fill_diagonal_(0) for x in (cracks, turns)]
    return both[0], both[1]
