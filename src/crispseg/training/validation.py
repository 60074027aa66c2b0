"""Validation while training: the metrics by which the best checkpoint is chosen and the log is read.

Not here: the whole suite of metrics (``crispseg.evaluation``).
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from crispseg.data import Item, SegmentationDataset
from crispseg.data.transforms import Size
from crispseg.errors import DataError
from crispseg.inference import predict_logits
from crispseg.metrics import BoundaryFScore, MeanIoU
from crispseg.progress import lines
from crispseg.training.ranks import Ranks

TOLERANCES = (1.0, 3.0, 5.0)
ONE_BY_ONE = frozenset({"cpu"})
"""Devices to which a batch is no gain."""


@torch.no_grad()
def validate(
    model: nn.Module,
    data: SegmentationDataset,
    fabric: Fabric,
    batch_size: int = 1,
    *,
    window: Size | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008
) -> dict[str, Any]:
    """Metrics of ``model`` on ``data`` at the size it is read at; None where one is undefined.

    One image at a time on a CPU; on a GPU up to ``batch_size`` neighbours of one size. ``window``: (height, width) of a
    sliding window by which each is seen, in steps of half of it, as ``crispseg evaluate --window`` does. Of several
    ranks each looks at its share of the images; they add up counts, so the metrics are those of one process, and each
    has them all.
    """
    k, ignore = len(data.classes), data.classes.ignore_index
    miou = MeanIoU(k, ignore_index=ignore).to(fabric.device)
    boundary = BoundaryFScore(k, ignore_index=ignore, tolerances=TOLERANCES).to(fabric.device)

    def count() -> None:
        own = range(ranks.rank, len(data), ranks.size)
        items = (data.get(index, 0) for index in lines(own, "validating", len(own)))
        for images, labels in batches(items, 1 if fabric.device.type in ONE_BY_ONE else batch_size):
            with fabric.autocast():
                seen = fabric.to_device(images).contiguous(memory_format=torch.channels_last)
                logits = predict_logits(model, seen, window=window)
            prediction, target = logits.argmax(1), fabric.to_device(labels)
            miou.update(prediction, target)
            boundary.update(prediction, target)

    training = model.training
    model.eval()
    ranks.together(count)
    model.train(training)
    result, at_boundary = (metric.scores(ranks.sum(metric.totals)) for metric in (miou, boundary))
    if result["miou"].isnan():
        raise DataError("the validation split has no labelled pixel, so no checkpoint can be chosen on it")
    return {
        "miou": result["miou"].item(),
        "boundary_f": _or_none(at_boundary["boundary_f"]),
        "per_class": _or_none(result["per_class"]),
    }


def batches(items: Iterable[Item], most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, H, W) and labels (B, H, W) of neighbours that have one size, at most ``most`` together.

    >>> small, large = ({"image": torch.zeros(3, n, 4), "label": torch.zeros(n, 4)} for n in (2, 3))
    >>> [len(images) for images, _ in batches([small, small, small, large, small], 2)]
    [2, 1, 1, 1]
    """
    for _, same in groupby(items, lambda item: item["image"].shape):
        while part := list(islice(same, most)):
            yield torch.stack([item["image"] for item in part]), torch.stack([item["label"] for item in part])


def _or_none(values: Tensor) -> list[float | None]:
    """A metric is NaN where there is nothing to measure, such as no border in the truth; JSON has no NaN."""
    return [None if value != value else value for value in values.tolist()]
