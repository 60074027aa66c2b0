"""RankSEG instead of argmax: labels that make Dice or IoU large, by its authors' package.

Not here: how labels are found.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from crispseg.errors import UsageError, require

METRICS = {"dice": "dice", "iou": "IoU"}
"""Our names of the metrics, and the package's."""


@dataclass(frozen=True, kw_only=True)
class RankSEG:
    """RankSEG: the labels that make the expected Dice or IoU of the image large, not a pixel's probability.

    It looks at the probabilities alone, not at the image, and trusts them to be calibrated. ``pip install
    "crispseg[rankseg]"``; the solver is its reciprocal moment approximation, the one for several classes.

    Args:
        metric: What is maximised.

    Source: Dai, Li: RankSEG, JMLR 24 (224), 2023; Wang, Dai: RankSEG-RMA, NeurIPS 2025.
    """

    metric: Literal["dice", "iou"] = "dice"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"rankseg.metric must be dice or iou, found {self.metric}")
        require("rankseg", "rankseg", purpose="--refine rankseg")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return the labels of probabilities p (K, H, W), as 1 for a pixel's class and 0 for the others (K, H, W)."""
        from rankseg import RankSEG as Solver

        if len(p) == 1:
            return p  # there is nothing to choose
        labels = Solver(metric=METRICS[self.metric], output_mode="multiclass", solver="RMA").predict(p[None])[0]
        return F.one_hot(labels.long(), len(p)).permute(2, 0, 1).to(p)
