"""What the four metrics share: a ``torchmetrics.Metric`` whose state is a table of integers, summed over images.

A metric is two functions: ``counts(pred, target)``, the integers of each image, and ``scores(counts)``, what they mean.
The class only adds up between the two, so its memory is constant and two processes have the same integers as one.

Not here: any metric.
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from crispseg.metrics.labels import codes

Average = Literal["dataset", "image"]
PIXELS = 2**21
"""As many at a time: large images go one by one, so that scratch maps stay in the cache whatever the batch size."""
Inside = tuple[slice, slice]
ALL: Inside = (slice(None), slice(None))
"""Rows and columns whose pixels count; the others are looked at and not counted: the margin of a part of an image."""


class CountingMetric(Metric):
    """Streaming sums of per-image counts; ``average="image"`` averages per-image ratios instead.

    With ``"dataset"`` (the default) the counts of all images are summed before anything is divided: exact integers, the
    same for any batch size, order or number of processes. With ``"image"`` every ratio is taken image by image, and
    averaged over the images in which it exists; sums of float64, so equal up to rounding.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    totals: Tensor
    ratio_sum: Tensor
    ratio_images: Tensor
    images: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int | None, average: Average, shape: tuple[int, ...], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, found {num_classes}")
        if average not in ("dataset", "image"):
            raise ValueError(f"average must be 'dataset' or 'image', found {average!r}")
        self.num_classes, self.ignore_index, self.average = num_classes, ignore_index, average
        zeros = torch.zeros(shape, dtype=torch.int64)
        self.add_state("totals", zeros, dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        if average == "image":
            ratios = self.ratios(zeros)
            self.add_state("ratio_sum", torch.zeros_like(ratios), dist_reduce_fx="sum")
            self.add_state("ratio_images", torch.zeros_like(ratios, dtype=torch.int64), dist_reduce_fx="sum")

    def counts(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the integers of each image, int64 (B, …); see the metric for what they are. Nothing is remembered."""
        p, t = codes(pred, target, self.num_classes, self.ignore_index)
        if not len(t):
            return t.new_zeros((0, *self.totals.shape), dtype=torch.int64)
        images = max(1, PIXELS // t[0].numel())
        return torch.cat([self.count_codes(*part) for part in zip(p.split(images), t.split(images))])

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add label maps (B, H, W) or logits (B, C, H, W) and their truth (B, H, W)."""
        counts = self.counts(pred, target)
        self.totals += counts.sum(0)
        self.images += len(counts)
        if self.average == "image":
            ratios = self.ratios(counts)
            self.ratio_sum += ratios.nansum(0)
            self.ratio_images += (~ratios.isnan()).sum(0)

    def compute(self) -> dict[str, Any]:
        """Return the scores of everything added so far."""
        if self.average == "image":
            return self.scores(self.totals, self.ratio_sum / self.ratio_images)
        return self.scores(self.totals)

    def of(self, pred: Tensor, target: Tensor) -> dict[str, Any]:
        """Return the scores of these maps alone; nothing is remembered. What the functional forms call."""
        counts = self.counts(pred, target)
        if self.average == "image":
            return self.scores(counts.sum(0), self.ratios(counts).nanmean(0))
        return self.scores(counts.sum(0))

    @abstractmethod
    def count_codes(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> Tensor:
        """Return the integers of each image from its codes (``labels.codes``), of the pixels ``inside`` alone."""

    @abstractmethod
    def ratios(self, counts: Tensor) -> Tensor:
        """Return every ratio that ``counts`` (…) give, NaN where undefined: what is averaged over images on request."""

    @abstractmethod
    def scores(self, counts: Tensor, ratios: Tensor | None = None) -> dict[str, Any]:
        """Return the scores from the counts of a data set, and from its ratios if these are not simply theirs."""
