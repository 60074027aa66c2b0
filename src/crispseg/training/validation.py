"""Validation while training: the metrics by which the best checkpoint is chosen and the log is read.

Not here: the whole suite of metrics (``crispseg.evaluation``).
"""

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from crispseg.data import SegmentationDataset
from crispseg.errors import DataError
from crispseg.metrics import BoundaryFScore, MeanIoU
from crispseg.progress import lines

TOLERANCES = (1.0, 3.0, 5.0)


@torch.no_grad()
def validate(model: nn.Module, data: SegmentationDataset, fabric: Fabric) -> dict[str, Any]:
    """Metrics of ``model`` on ``data`` at the size it is read at, one image at a time; None where one is undefined."""
    k, ignore = len(data.classes), data.classes.ignore_index
    miou = MeanIoU(k, ignore_index=ignore).to(fabric.device)
    boundary = BoundaryFScore(k, ignore_index=ignore, tolerances=TOLERANCES).to(fabric.device)
    training = model.training
    model.eval()
    for index in lines(range(len(data)), "validating", len(data)):
        item = data.get(index, 0)
        with fabric.autocast():
            logits = model(fabric.to_device(item["image"][None]).contiguous(memory_format=torch.channels_last))
        prediction, target = logits.argmax(1), fabric.to_device(item["label"][None])
        miou.update(prediction, target)
        boundary.update(prediction, target)
    model.train(training)
    result = miou.compute()
    if result["miou"].isnan():
        raise DataError("the validation split has no labelled pixel, so no checkpoint can be chosen on it")
    return {
        "miou": result["miou"].item(),
        "boundary_f": _or_none(boundary.compute()["boundary_f"]),
        "per_class": _or_none(result["per_class"]),
    }


def _or_none(values: Tensor) -> list[float | None]:
    """A metric is NaN where there is nothing to measure, such as no border in the truth; JSON has no NaN."""
    return [None if value != value else value for value in values.tolist()]
