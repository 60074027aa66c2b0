"""The page's part on ``crispseg refine``: both networks' masks after it, in numbers and at one image.

Not here: refining and measuring (``measurement``), the rest of the page (``page``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from crispseg import report
from crispseg.data import SegmentationDataset
from crispseg.demo.measurement import Measurement
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import near_boundary

COLUMNS = ("image", "truth", "without SDN", "the same, refined", "with SDN", "the same, refined")
NEAR = 3
"""Half-width in px of the band around true borders whose worst part is enlarged."""
Rows = Callable[[dict[str, Any], dict[str, Any]], list[list[Any]]]


def refined_part(
    results: Mapping[str, Measurement], data: SegmentationDataset, index: int, rows: Rows
) -> dict[str, Any] | None:
    """Return what the template shows: ``numbers``, and panels of the image ``index``; None if nothing was refined.

    ``rows``: the table of two scores, each row a name, the first, the second and the difference. The enlarged part is
    where all four masks together err most at borders: it takes no side.
    """
    masks, numbers = [], []
    for found in (results["none"], results["sdn"]):
        if found.refined is None:
            return None
        masks += [found.predictions[index], found.refined.predictions[index]]
        numbers.append(rows(found.scores, found.refined.scores))
    image, truth = data[index]["image"], data[index]["label"]
    k, ignore = len(data.classes), data.classes.ignore_index
    wrong = [p != t for p, t in (codes(mask, truth, k, ignore) for mask in masks)]
    weight = (torch.stack(wrong).sum(0) * near_boundary(truth, NEAR, k, ignore))[0].float()
    box = report.worst_box(weight, max(1, truth.shape[0] // 3), max(1, truth.shape[1] // 3))
    pictures = [report.picture(image), *(report.colourise(m, data.classes.palette, ignore) for m in (truth, *masks))]
    return {
        "numbers": [[*one, *other[1:]] for one, other in zip(*numbers, strict=True)],
        "whole": [
            report.panel(report.framed(p, box), caption, photo=p is pictures[0])
            for p, caption in zip(pictures, COLUMNS, strict=True)
        ],
        "crops": [
            report.panel(report.crop(p, box), "", f"{caption}, the framed part", sharp=True)
            for p, caption in zip(pictures, COLUMNS, strict=True)
        ],
    }
