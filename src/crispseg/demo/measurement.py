"""A trained run on a data set: its predictions at the labels' own size, and its scores as ``metrics.json`` has them.

Not here: pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crispseg.data import SegmentationDataset
from crispseg.evaluation.suite import suite
from crispseg.inference import predict_logits, seen_size
from crispseg.progress import track
from crispseg.runs import Run


@dataclass(frozen=True)
class Measurement:
    """``scores`` for JSON, the predicted label maps uint8 (H, W), and the boundary F at 1 px of each image alone.

    The last is over the classes that are true in the image, so that two networks are compared on the same; NaN where no
    boundary is.
    """

    scores: dict[str, Any]
    predictions: list[Tensor]
    image_boundary_f: list[float]


def measure(run: Run, data: SegmentationDataset) -> Measurement:
    """Predict every image of ``data``, whole and at one scale, and score it against its label."""
    predictions: list[Tensor] = []

    def maps() -> Iterator[tuple[str, Tensor, Tensor]]:
        for index in track(range(len(data)), "evaluating", len(data)):
            item = data[index]
            image = item["image"]
            size = seen_size((image.shape[-2], image.shape[-1]), run.config.data.size)
            predictions.append(predict_logits(run.model, image, size=size).argmax(0).to(torch.uint8))
            yield item["name"], predictions[-1], item["label"]

    evaluation = suite(maps(), data.classes.names, data.classes.ignore_index)
    return Measurement(evaluation.summary(), predictions, evaluation.per_image(true_only=True)["boundary_f_1"].tolist())
