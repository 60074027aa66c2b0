"""Class scores of a film averaged along the flow, so that borders move as the picture does; and the flow itself.

    s_t(p) = (1 − w) p_t(p) + w s_{t−1}(p + f(p))   where p is seen in both frames;  s_t = p_t elsewhere

p_t: the probabilities of frame t; f: the flow from frame t to frame t − 1. Held are one frame and its scores.

Not here: reading and writing films (``film``), how consistent labels are (``crispseg.metrics.temporal``).
"""

import importlib
from typing import Any

import torch
from torch import Tensor

from crispseg.errors import require
from crispseg.metrics.temporal import carry, visible

WEIGHT = 0.5
"""w, of the frames before."""


def optical_flow(frame: Tensor, other: Tensor) -> Tensor:
    """Return where each pixel of ``frame`` lies in ``other``, as a distance: float32 (2, H, W), in px, x then y.

    Both are uint8 (3, H, W). By OpenCV's DIS (Kroeger et al.: Fast optical flow using dense inverse search, ECCV 2016).
    Raises ``UsageError`` if OpenCV is not installed.
    """
    require("steady", "cv2", purpose="optical flow")
    cv2: Any = importlib.import_module("cv2")
    height, width = frame.shape[-2:]
    if min(height, width) < 16:  # DIS has no patch that small
        return torch.zeros(2, height, width)
    grey = [cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY) for image in (frame, other)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    return torch.from_numpy(flow).permute(2, 0, 1).contiguous()


class Steady:
    """Logits of one frame after the other, averaged along the flow; ``weight``: w, of the frames before, below 1."""

    def __init__(self, weight: float = WEIGHT) -> None:
        if not 0 <= weight < 1:
            raise ValueError(f"weight must be at least 0 and below 1, found {weight}")
        self.weight = weight
        self._before: tuple[Tensor, Tensor] | None = None

    def __call__(self, image: Tensor, logits: Tensor) -> Tensor:
        """Return the averaged probabilities (K, H, W) of the next frame, uint8 (3, H, W), from its logits (K, H, W)."""
        scores = logits.float().softmax(0)
        if self._before is not None:
            other, held = self._before
            flow, back = (part.to(scores) for part in (optical_flow(image, other), optical_flow(other, image)))
            scores = scores.lerp(carry(held, flow), self.weight * visible(flow, back).to(scores))
        self._before = (image, scores)
        return scores
