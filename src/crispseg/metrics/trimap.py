"""Trimap IoU: the IoU counted only near the true class boundaries, as a curve over how near."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crispseg.metrics.base import ALL, Average, CountingMetric, Inside
from crispseg.metrics.regions import bands
from crispseg.metrics.scores import absent, iou, mean_present
from crispseg.metrics.tally import joint_tally

RADII = (1, 2, 3, 5, 8, 13, 21)


class TrimapIoU(CountingMetric):
    """Mean IoU of the pixels within r px of a true class boundary, for several r.

        trimap_iou(r) = mean over c of |P ∩ T ∩ N_r| / |(P ∪ T) ∩ N_r|

    P, T: the pixels that prediction and truth give to class c. N_r: the labelled pixels that have a pixel of another
    true class within r px (maximum norm, a (2r+1)² window; not the edge of the image, and not the edge of void). The
    region depends on the truth alone, so it is the same for every model. Sums over all images before dividing; a class
    with no pixel in N_r in either map is NaN there and left out of that mean.

    Parameters
    ----------
    num_classes, ignore_index, average
        As in :class:`crispseg.metrics.MeanIoU`.
    radii
        r in px, each ≥ 1, in any order, none twice.

    Shapes
    ------
    ``update(pred, target)``: pred (B, H, W) integer labels or (B, C, H, W) logits; target (B, H, W).
    ``compute()``: ``trimap_iou`` (R,) in the order of ``radii``; ``per_class`` (R, C); ``pixels`` (R,) int64, the size
    of N_r; ``radii``; ``absent``: the classes that are NaN at every radius.
    ``counts(pred, target)``: |P ∩ T|, |P|, |T| within N_r of each image, (B, R, 3, C).

    Raises
    ------
    ValueError, TypeError
        A radius below 1 or given twice, or maps that do not fit: see :func:`crispseg.metrics.labels.codes`.

    References
    ----------
    Kohli, Ladický, Torr: Robust Higher Order Potentials for Enforcing Label Consistency, IJCV 2009 (the trimap);
    Krähenbühl, Koltun, NIPS 2011, arXiv 1210.5644 (as a curve over r). Norm and border are this project's choice.

    Examples
    --------
    >>> truth = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    >>> metric = TrimapIoU(num_classes=2, radii=(1, 3))
    >>> metric.update(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]), truth)
    >>> [round(x, 3) for x in metric.compute()["trimap_iou"].tolist()]
    [0.25, 0.708]
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        radii: Sequence[int] = RADII,
        average: Average = "dataset",
        **kwargs: Any,
    ) -> None:
        self.radii = tuple(int(r) for r in radii)
        if not self.radii or min(self.radii) < 1 or len(set(self.radii)) < len(self.radii):
            raise ValueError(f"radii must be one or more different numbers of px, each at least 1, found {radii}")
        super().__init__(num_classes, ignore_index, average, (len(self.radii), 3, num_classes), **kwargs)

    def count_codes(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> Tensor:
        c, r, at = self.num_classes, len(self.radii), (..., *inside)
        ascending = sorted(self.radii)
        ring = torch.full_like(target, r, dtype=torch.uint8)  # how many of the nested regions miss the pixel
        for region in bands(target, ascending, c):
            ring -= region.view(torch.uint8)
        table = joint_tally((target[at], c + 1), (pred[at], c + 1), (ring[at], r + 1))[:, 1:, :, :r]  # row 0: void
        overlap = [table[:, :, 1:].diagonal(dim1=1, dim2=2).transpose(1, 2), table.sum(1)[:, 1:], table.sum(2)]
        within = torch.stack(overlap, dim=1).cumsum(-1)  # (B, 3, C, R)
        order = [ascending.index(radius) for radius in self.radii]
        return within[..., order].permute(0, 3, 1, 2).contiguous()

    def ratios(self, counts: Tensor) -> Tensor:
        """IoU of each class at each radius: (…, R, C)."""
        return iou(counts)

    def scores(self, counts: Tensor, ratios: Tensor | None = None) -> dict[str, Any]:
        per_class = self.ratios(counts) if ratios is None else ratios
        return {
            "trimap_iou": mean_present(per_class),
            "per_class": per_class,
            "absent": absent(per_class),
            "pixels": counts[..., 2, :].sum(-1),
            "radii": self.radii,
        }


def trimap_iou(
    pred: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    radii: Sequence[int] = RADII,
    average: Average = "dataset",
) -> dict[str, Any]:
    """Return what :class:`TrimapIoU` computes, of these maps alone.

    >>> trimap_iou(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), num_classes=2, radii=[1])["trimap_iou"].tolist()
    [1.0]
    """
    return TrimapIoU(num_classes, ignore_index, radii=radii, average=average).of(pred, target)
