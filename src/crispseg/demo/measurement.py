"""A trained run on a data set: its predictions at the labels' own size, and its scores as ``metrics.json`` has them,
as they are and after ``crispseg refine``.

Not here: pictures.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crispseg.data import SegmentationDataset
from crispseg.evaluation.suite import suite
from crispseg.inference import predict_logits, seen_size
from crispseg.progress import track
from crispseg.refinement import refine
from crispseg.runs import Run


@dataclass(frozen=True)
class Measurement:
    """``scores`` for JSON, the predicted label maps uint8 (H, W), and the boundary F at 1 px of each image alone.

    The last is over the classes that are true in the image, so that two networks are compared on the same; NaN where no
    boundary is. ``refined``: the same of the masks after ``crispseg refine``.
    """

    scores: dict[str, Any]
    predictions: list[Tensor]
    image_boundary_f: list[float]
    refined: "Measurement | None" = None


def measure(run: Run, data: SegmentationDataset) -> Measurement:
    """Predict every image of ``data``, whole and at one scale, refine that, and score both against its label."""
    predictions: list[Tensor] = []
    refined: list[Tensor] = []
    for index in track(range(len(data)), "evaluating", len(data)):
        image = data[index]["image"]
        size = seen_size((image.shape[-2], image.shape[-1]), run.config.data.size)
        logits = predict_logits(run.model, image, size=size)
        predictions.append(logits.argmax(0).to(torch.uint8))
        refined.append(refine(logits, image.clamp(0, 1), "crispseg").argmax(0).to(torch.uint8))
    return replace(_scored(predictions, data), refined=_scored(refined, data))


def _scored(predictions: list[Tensor], data: SegmentationDataset) -> Measurement:
    items = (data[index] for index in range(len(data)))
    maps = ((item["name"], mask, item["label"]) for item, mask in zip(items, predictions, strict=True))
    found = suite(maps, data.classes.names, data.classes.ignore_index)
    return Measurement(found.summary(), predictions, found.per_image(true_only=True)["boundary_f_1"].tolist())
