"""Boundary IoU (Cheng et al. 2021) for label maps: the IoU of the bands that lie inside each class along its contour.

The bands of all classes are found in one pass (``regions.band``). Subtracting an eroded *label map* from itself, as is
sometimes done, is right for two classes only: with more, differences of class ids come out as classes.
"""

from typing import Any

import torch
from torch import Tensor

from crispseg.metrics.base import ALL, Average, CountingMetric, Inside
from crispseg.metrics.regions import band, band_width
from crispseg.metrics.scores import absent, iou, mean_present
from crispseg.metrics.tally import joint_tally


class BoundaryIoU(CountingMetric):
    """Boundary IoU of a label map, per class and mean, over a data set.

        BoundaryIoU_c = |(P_d ∩ P) ∩ (T_d ∩ T)| / |(P_d ∩ P) ∪ (T_d ∩ T)|

    P, T: the pixels that prediction and truth give to class c. P_d ∩ P, the **band**: the pixels of P within d px of
    its contour, that is those which d erosions of P by a 3×3 square take off (distance in the maximum norm). Numerators
    and denominators are summed over all images before they are divided. On binary masks the bands are those of the
    published boundary-iou-api to the last pixel.

    **Void**: truth's void is taken out of both maps before bands are found. It is nobody's neighbour, so its edge
    is no boundary, and nothing predicted there has any effect. A class with no band in either map is NaN, left out of
    the mean and listed.

    Parameters
    ----------
    num_classes, ignore_index, average
        As in :class:`crispseg.metrics.MeanIoU`.
    width
        d in px; None: d = round(ratio · image diagonal), at least 1, image by image.
    ratio
        Share of the image diagonal; 0.02 as published. Used when ``width`` is None.
    border
        Whether a class that touches the edge of the image has its contour there (the published code: yes).

    Shapes
    ------
    ``update(pred, target)``: pred (B, H, W) integer labels or (B, C, H, W) logits; target (B, H, W).
    ``compute()``: ``boundary_iou`` (); ``per_class`` (C,); ``absent``; ``intersection``, ``union`` (C,) int64, px;
    ``widths``, the smallest and the largest d used; ``border``.
    ``counts(pred, target)``: |∩|, |band of P|, |band of T| of each image, (B, 3, C).

    Raises
    ------
    ValueError, TypeError
        A width below 1, a ratio not above 0, or maps that do not fit: see :func:`crispseg.metrics.labels.codes`.

    References
    ----------
    Cheng, Girshick, Dollár, Berg, Kirillov: Boundary IoU, CVPR 2021, arXiv 2103.16562, equation 2; the bands as in
    the authors' boundary-iou-api.

    Examples
    --------
    >>> truth = torch.zeros(1, 40, 40, dtype=torch.uint8)
    >>> truth[:, 10:30, 10:30] = 1
    >>> metric = BoundaryIoU(num_classes=2, width=2)
    >>> metric.update(truth.roll(1, dims=2), truth)
    >>> [round(x, 3) for x in metric.compute()["per_class"].tolist()]
    [0.832, 0.6]
    """

    narrowest: Tensor
    widest: Tensor

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        width: int | None = None,
        ratio: float = 0.02,
        border: bool = True,
        average: Average = "dataset",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, ignore_index, average, (3, num_classes), **kwargs)
        if width is not None and width < 1:
            raise ValueError(f"width must be at least 1 px, found {width}")
        if not ratio > 0:
            raise ValueError(f"ratio must be above 0, found {ratio}")
        self.width, self.ratio, self.border = width, ratio, border
        self.add_state("narrowest", torch.tensor(torch.iinfo(torch.int64).max), dist_reduce_fx="min")
        self.add_state("widest", torch.tensor(0), dist_reduce_fx="max")

    def width_of(self, height: int, width: int) -> int:
        """Return d in px for an image of this size."""
        return band_width(height, width, self.ratio) if self.width is None else self.width

    def count_codes(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> Tensor:
        c, at = self.num_classes, (..., *inside)
        d = self.width_of(*target.shape[-2:])
        p, t = (code * band(code, d, c, border=self.border) for code in (pred, target))
        table = joint_tally((p[at], c + 1), (t[at], c + 1))
        return torch.stack([table.diagonal(dim1=1, dim2=2), table.sum(2), table.sum(1)], dim=1)[:, :, 1:]

    def update(self, pred: Tensor, target: Tensor) -> None:
        super().update(pred, target)
        d = self.width_of(*target.shape[-2:])
        self.narrowest = self.narrowest.clamp(max=d)
        self.widest = self.widest.clamp(min=d)

    def compute(self) -> dict[str, Any]:
        widths = (int(self.narrowest.minimum(self.widest)), int(self.widest))  # (0, 0) before the first update
        return {**super().compute(), "widths": widths, "border": self.border}

    def ratios(self, counts: Tensor) -> Tensor:
        """Boundary IoU of each class: (…, C)."""
        return iou(counts)

    def scores(self, counts: Tensor, ratios: Tensor | None = None) -> dict[str, Any]:
        per_class = self.ratios(counts) if ratios is None else ratios
        both, predicted, true = counts.unbind(-2)
        return {
            "boundary_iou": mean_present(per_class),
            "per_class": per_class,
            "absent": absent(per_class),
            "intersection": both,
            "union": predicted + true - both,
        }


def boundary_iou(
    pred: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int | None = 255,
    *,
    width: int | None = None,
    ratio: float = 0.02,
    border: bool = True,
    average: Average = "dataset",
) -> dict[str, Any]:
    """Return what :class:`BoundaryIoU` computes, of these maps alone.

    >>> same = torch.tensor([[0, 0, 1, 1]])
    >>> boundary_iou(same, same, num_classes=2)["boundary_iou"].item()
    1.0
    """
    metric = BoundaryIoU(num_classes, ignore_index, width=width, ratio=ratio, border=border, average=average)
    d = metric.width_of(*target.shape[-2:])
    return {**metric.of(pred, target), "widths": (d, d), "border": border}
