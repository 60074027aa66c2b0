"""Temporal consistency of a film's labels: do they move as the picture does?

The labels of one frame are carried to the next along the flow, and compared with those found there, where a pixel is
seen in both. Not here: finding the flow (``crispseg.inference.flow``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from crispseg.metrics.boundary_f import BoundaryFScore
from crispseg.metrics.miou import MeanIoU
from crispseg.metrics.scores import ratio


class TemporalConsistency(Metric):
    """Disagreement of neighbouring frames along the flow, and boundary F between them, over a film.

        disagreement = #{p seen in both: L_t(p) ≠ L_{t−1}(p + f(p))} / #{p seen in both}

    f: the flow from frame t to frame t − 1, in px. A pixel is seen in both if the flow back leads to where it came
    from, see :func:`visible`; what is hidden in one of the two counts nowhere. ``L_{t−1}`` is taken at the nearest
    pixel. Boundary F compares the carried labels with the frame's own, as :class:`crispseg.metrics.BoundaryFScore`.

    Labels that never change are consistent, and may be wrong: this stands beside a comparison with the truth, not in
    its place.

    Parameters
    ----------
    num_classes, ignore_index
        As in :class:`crispseg.metrics.MeanIoU`; void in either frame counts nowhere.
    tolerance
        Of boundary F, in px.

    Shapes
    ------
    ``update(label, before, flow, back)``: labels (H, W), integer, of a frame and the one before; flow and back
    (2, H, W), float, in px, x then y: pixel p of ``label`` lies at p + flow(p) in ``before``, and back leads back.
    ``compute()``: ``disagreement``, ``boundary_f``, ``visible``, the share of pixels seen in both; ``frames``, the
    number of pairs.

    Raises
    ------
    ValueError, TypeError
        Maps that do not fit each other; see :func:`crispseg.metrics.labels.codes`.

    References
    ----------
    Warping error with an occlusion mask: Lai et al.: Learning blind video temporal consistency, ECCV 2018; for labels:
    Liu et al.: Efficient semantic video segmentation with per-frame inference, ECCV 2020. The check of the flow:
    Sundaram, Brox, Keutzer: Dense point trajectories by GPU-accelerated large displacement optical flow, ECCV 2010.

    Examples
    --------
    >>> before = torch.tensor([[0, 0, 1, 1]])
    >>> metric, still = TemporalConsistency(num_classes=2), torch.zeros(2, 1, 4)
    >>> metric.update(torch.tensor([[0, 1, 1, 1]]), before, still, still)
    >>> metric.compute()["disagreement"]
    0.25
    """

    is_differentiable = False
    full_state_update = False

    regions: Tensor
    boundaries: Tensor
    seen: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, tolerance: float = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self._region = MeanIoU(num_classes, -1)
        self._boundary = BoundaryFScore(num_classes, -1, tolerances=[tolerance])
        for name, zeros in (
            ("regions", self._region.totals),
            ("boundaries", self._boundary.totals),
            ("seen", torch.zeros(3, dtype=torch.int64)),
        ):
            self.add_state(name, torch.zeros_like(zeros), dist_reduce_fx="sum")

    def update(self, label: Tensor, before: Tensor, flow: Tensor, back: Tensor) -> None:
        """Add a frame and the one before."""
        if label.shape != before.shape or flow.shape != (2, *label.shape) or back.shape != flow.shape:
            raise ValueError(
                "expected labels (H, W) of one size and flows (2, H, W), found "
                f"{', '.join(str(tuple(part.shape)) for part in (label, before, flow, back))}"
            )
        both = visible(flow, back)
        carried = carry(before[None].to(torch.int64), flow, nearest=True)[0]
        target, hidden = label.to(torch.int64), ~both
        if self.ignore_index is not None:
            hidden |= (target == self.ignore_index) | (carried == self.ignore_index)
        target, carried = target.masked_fill(hidden, -1), carried.masked_fill(hidden, -1)
        self.regions += self._region.counts(carried, target)[0]
        self.boundaries += self._boundary.counts(carried, target)[0]
        self.seen += torch.tensor([int(both.sum()), both.numel(), 1], device=self.seen.device)

    def compute(self) -> dict[str, Any]:
        """Return the scores of all pairs of frames added so far; NaN where nothing was seen."""
        total, right = self.regions.sum(), self.regions.diagonal().sum()
        return {
            "disagreement": float(ratio(total - right, total)),
            "boundary_f": float(self._boundary.scores(self.boundaries)["boundary_f"][0]),
            "visible": float(ratio(self.seen[0], self.seen[1])),
            "frames": int(self.seen[2]),
        }


def carry(values: Tensor, flow: Tensor, *, nearest: bool = False) -> Tensor:
    """Return the values (C, H, W) of one frame at the pixels of another: v(p + f(p)), f (2, H, W), in px, x then y.

    Between pixels linear, or the nearest; beyond the frame its border.

    >>> carry(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]])).tolist()
    [[[2.0, 3.0, 4.0]]]
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    if nearest:
        return values[:, y.round().long().clamp(0, height - 1), x.round().long().clamp(0, width - 1)]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(
        values[None], grid[None].to(values), mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Return which pixels are seen in both frames, bool (H, W).

        |f(p) + b(p + f(p))|² ≤ 0.01 (|f(p)|² + |b(p + f(p))|²) + 0.5,   p + f(p) inside the frame

    f, b: the flow to the other frame and the one back, (2, H, W) in px.

    >>> still = torch.zeros(2, 1, 3)
    >>> visible(still + torch.tensor([1.0, 0.0])[:, None, None], still).tolist()
    [[False, False, False]]
    """
    height, width = flow.shape[-2:]
    returned = carry(back, flow)
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    error = (flow + returned).square().sum(0)
    return inside & (error <= 0.01 * (flow.square().sum(0) + returned.square().sum(0)) + 0.5)
