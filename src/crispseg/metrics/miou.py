"""Mean IoU, per-class IoU and pixel accuracy over a data set, from one confusion matrix.

Unlike ``torchmetrics.segmentation.MeanIoU``, nothing is averaged per image unless asked for, and void counts nowhere.
"""

from typing import Any

import torch
from torch import Tensor

from crispseg.metrics.base import ALL, Average, CountingMetric, Inside
from crispseg.metrics.scores import absent, iou, mean_present, ratio
from crispseg.metrics.tally import joint_tally


class MeanIoU(CountingMetric):
    """Mean intersection over union of the classes, over a data set.

        IoU_c = n_cc / (Σ_j n_cj + Σ_i n_ic − n_cc),   miou = mean of IoU_c over the classes with IoU_c defined

    n_ij: labelled pixels of true class i predicted as j, summed over all images. A class in neither truth nor
    prediction is NaN, left out of the mean and listed in ``absent``.

    Parameters
    ----------
    num_classes
        C.
    ignore_index
        The label of void: a pixel whose truth is void counts nowhere, and a prediction of void at a labelled pixel
        misses its class and claims none. None: there is no void.
    average
        ``"dataset"``, or ``"image"``: the mean over the images in which the class occurs, then over classes.

    Shapes
    ------
    ``update(pred, target)``: pred (B, H, W) integer labels or (B, C, H, W) logits; target (B, H, W).
    ``compute()``: ``miou`` (); ``per_class`` (C,); ``pixel_accuracy`` (), the share of labelled pixels that are right;
    ``absent``, a tuple of classes; ``confusion`` (C, C + 1) int64, rows the truth, the last column "no answer".
    ``counts(pred, target)``: the confusion matrix of each image, (B, C, C + 1).

    Raises
    ------
    ValueError, TypeError
        Maps that do not fit each other or hold labels out of range; see :func:`crispseg.metrics.labels.codes`.

    References
    ----------
    Everingham et al.: The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.4 (segmentation accuracy).

    Examples
    --------
    >>> metric = MeanIoU(num_classes=2)
    >>> metric.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    >>> metric.compute()["per_class"].tolist()
    [0.5, 0.5]
    """

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, average: Average = "dataset", **kwargs: Any
    ) -> None:
        super().__init__(num_classes, ignore_index, average, (num_classes, num_classes + 1), **kwargs)

    def count_codes(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> Tensor:
        at = (..., *inside)
        table = joint_tally((target[at], self.num_classes + 1), (pred[at], self.num_classes + 1))[:, 1:]  # row 0: void
        return torch.cat([table[:, :, 1:], table[:, :, :1]], dim=-1)

    def ratios(self, counts: Tensor) -> Tensor:
        """IoU of each class, then the pixel accuracy: (…, C + 1)."""
        return region_ratios(overlap(counts))

    def scores(self, counts: Tensor, ratios: Tensor | None = None) -> dict[str, Any]:
        ratios = self.ratios(counts) if ratios is None else ratios
        per_class = ratios[..., :-1]
        return {
            "miou": mean_present(per_class),
            "per_class": per_class,
            "pixel_accuracy": ratios[..., -1],
            "absent": absent(per_class),
            "confusion": counts,
        }


def overlap(confusion: Tensor) -> Tensor:
    """Return |P ∩ T|, |P| and |T| of each class, (…, 3, C), from confusion matrices (…, C, C + 1)."""
    square = confusion[..., :-1]
    return torch.stack([square.diagonal(dim1=-2, dim2=-1), square.sum(-2), confusion.sum(-1)], dim=-2)


def region_ratios(overlap: Tensor) -> Tensor:
    """Return the IoU of each class, then the pixel accuracy, (…, C + 1), from :func:`overlap`."""
    both, _, true = overlap.unbind(-2)
    return torch.cat([iou(overlap), ratio(both.sum(-1), true.sum(-1)).unsqueeze(-1)], dim=-1)


def mean_iou(
    pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = 255, *, average: Average = "dataset"
) -> dict[str, Any]:
    """Return what :class:`MeanIoU` computes, of these maps alone.

    >>> mean_iou(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]]), num_classes=2)["pixel_accuracy"].item()
    0.75
    """
    return MeanIoU(num_classes, ignore_index, average=average).of(pred, target)
