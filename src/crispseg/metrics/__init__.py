"""Metrics of label maps, exact and fast: IoU, Boundary IoU, Boundary F, trimap IoU. Streaming, with void, under DDP.

Each is a ``torchmetrics.Metric`` and a function. All hold integers until the last division, see ``base``.
"""

from crispseg.metrics.boundary_f import BoundaryFScore, boundary_f_score
from crispseg.metrics.boundary_iou import BoundaryIoU, boundary_iou
from crispseg.metrics.miou import MeanIoU, mean_iou
from crispseg.metrics.seams import seam_difference
from crispseg.metrics.temporal import TemporalConsistency
from crispseg.metrics.trimap import TrimapIoU, trimap_iou

__all__ = [
    "BoundaryFScore",
    "BoundaryIoU",
    "MeanIoU",
    "TemporalConsistency",
    "TrimapIoU",
    "boundary_f_score",
    "boundary_iou",
    "mean_iou",
    "seam_difference",
    "trimap_iou",
]
