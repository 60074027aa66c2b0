"""Boundary F: are the predicted class boundaries near true ones of the same class, and the true ones near predicted?"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crispseg.metrics.base import ALL, Average, CountingMetric, Inside
from crispseg.metrics.regions import contour
from crispseg.metrics.scores import absent, f_score, mean_present, ratio
from crispseg.metrics.tally import joint_tally

TOLERANCES = (1, 3, 5)


class BoundaryFScore(CountingMetric):
    """Boundary F-score, per class and mean, at several tolerances, over a data set.

        precision_c(τ) = #{p ∈ ∂P : ∃ q ∈ ∂T, ‖p − q‖₂ ≤ τ} / |∂P|,   recall_c the same with P and T exchanged
        F_c = 2 · precision_c · recall_c / (precision_c + recall_c),   boundary_f = mean of F_c over the classes defined

    P, T: the pixels that prediction and truth give to class c. ∂P, its **boundary pixels**: those of P with one of
    their four neighbours in another class; the edge of the image is no boundary, nor is the edge of void. Truth's void
    is taken out of both maps first, so nothing predicted there has any effect. Pixels are counted over all images, then
    divided. A class with boundary pixels in neither map is NaN, left out of the mean and listed; in one of them only,
    its F is 0.

    Parameters
    ----------
    num_classes, ignore_index, average
        As in :class:`crispseg.metrics.MeanIoU`.
    tolerances
        τ in px, Euclidean, each ≥ 0, in any order, none twice. 0 asks for the very pixel.

    Shapes
    ------
    ``update(pred, target)``: pred (B, H, W) integer labels or (B, C, H, W) logits; target (B, H, W).
    ``compute()``: ``boundary_f`` (T,) in the order of ``tolerances``; ``per_class``, ``precision``, ``recall`` (T, C);
    ``absent``; ``tolerances``; ``boundary_pixels`` (2, C) int64, |∂P| and |∂T|.
    ``counts(pred, target)``: of each image (B, 2, T + 1, C): for P, then T, the matched boundary pixels at each
    tolerance, then all of them.

    Raises
    ------
    ValueError, TypeError
        A tolerance below 0 or given twice, or maps that do not fit: see :func:`crispseg.metrics.labels.codes`.

    References
    ----------
    Csurka, Larlus, Perronnin: What is a good evaluation measure for semantic segmentation?, BMVC 2013 (per class, per
    image); Perazzi et al., CVPR 2016. Sums over the data set are this project's default, ``average="image"`` is theirs.

    Examples
    --------
    >>> truth = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    >>> metric = BoundaryFScore(num_classes=2, tolerances=(0, 1))
    >>> metric.update(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]), truth)
    >>> metric.compute()["boundary_f"].tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        tolerances: Sequence[float] = TOLERANCES,
        average: Average = "dataset",
        **kwargs: Any,
    ) -> None:
        self.tolerances = tuple(tolerances)
        if not self.tolerances or min(self.tolerances) < 0 or len(set(self.tolerances)) < len(self.tolerances):
            raise ValueError(f"tolerances must be one or more different numbers of px, ≥ 0, found {tolerances}")
        super().__init__(num_classes, ignore_index, average, (2, len(self.tolerances) + 1, num_classes), **kwargs)

    def count_codes(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> Tensor:
        c, n, at = self.num_classes, len(self.tolerances), (..., *inside)
        ascending = sorted(self.tolerances)
        edges = contour(pred), contour(target)
        missed = tolerances_missed(*edges, ascending)
        table = [joint_tally((e[at], c + 1), (m[at], n + 1))[:, 1:] for e, m in zip(edges, missed)]
        matched = torch.stack(table, dim=1).cumsum(-1)  # (B, 2, C, T + 1); the last counts all
        order = [ascending.index(tolerance) for tolerance in self.tolerances] + [n]
        return matched[..., order].transpose(-1, -2).contiguous()

    def ratios(self, counts: Tensor) -> Tensor:
        """F, precision and recall at each tolerance of each class: (…, 3, T, C)."""
        precision, recall = ratio(counts[..., :-1, :], counts[..., -1:, :].expand_as(counts[..., :-1, :])).unbind(-3)
        return torch.stack([f_score(precision, recall), precision, recall], dim=-3)

    def scores(self, counts: Tensor, ratios: Tensor | None = None) -> dict[str, Any]:
        f, precision, recall = (self.ratios(counts) if ratios is None else ratios).unbind(-3)
        return {
            "boundary_f": mean_present(f),
            "per_class": f,
            "precision": precision,
            "recall": recall,
            "absent": absent(f),
            "tolerances": self.tolerances,
            "boundary_pixels": counts[..., -1, :],
        }


def tolerances_missed(pred: Tensor, target: Tensor, ascending: Sequence[float]) -> tuple[Tensor, Tensor]:
    """How many of the ascending tolerances find no pixel of the same code in the other map, for each pixel of the two.

    Every offset of the disc is one comparison of two shifted views, and serves both directions: p in ``pred`` matches
    p + offset in ``target`` and the other way round. Dense, so the time does not depend on what is in the maps. Pixels
    of code 0 match each other too; nobody counts them.
    """
    height, width = pred.shape[-2:]
    # One spare map for all comparisons: fresh memory for each would cost more than comparing.
    hit_p, hit_t, spare = (torch.zeros_like(pred, dtype=torch.bool) for _ in range(3))
    missed_p, missed_t = (torch.zeros_like(pred, dtype=torch.uint8) for _ in range(2))
    inner = -1.0
    for tolerance in ascending:
        for dy, dx in _disc(inner, tolerance):
            if abs(dy) >= height or abs(dx) >= width:
                continue
            at_p = (..., slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx)))
            at_t = (..., slice(max(0, dy), height - max(0, -dy)), slice(max(0, dx), width - max(0, -dx)))
            same = torch.eq(pred[at_p], target[at_t], out=spare[at_p])
            hit_p[at_p].logical_or_(same)
            hit_t[at_t].logical_or_(same)
        missed_p += ~hit_p
        missed_t += ~hit_t
        inner = tolerance
    return missed_p, missed_t


def _disc(inner: float, outer: float) -> list[tuple[int, int]]:
    r = math.floor(outer)
    square = [(dy, dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)]
    return [(dy, dx) for dy, dx in square if inner < math.hypot(dy, dx) <= outer]


def boundary_f_score(
    pred: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    tolerances: Sequence[float] = TOLERANCES,
    average: Average = "dataset",
) -> dict[str, Any]:
    """Return what :class:`BoundaryFScore` computes, of these maps alone.

    >>> same = torch.tensor([[0, 0, 1, 1]])
    >>> boundary_f_score(same, same, num_classes=2, tolerances=[1])["boundary_f"].tolist()
    [1.0]
    """
    return BoundaryFScore(num_classes, ignore_index, tolerances=tolerances, average=average).of(pred, target)
