"""What the learned refiner is trained by, on generated pictures or a user's: its loss, and the learning rate's way.

Not here: where pictures and masks come from (``refiner``, ``refiner_fit``).
"""

import math

import torch.nn.functional as F
from torch import Tensor

from crispseg.refinement.borders import borders, within
from crispseg.refinement.learned import REACH
from crispseg.refinement.network import RefinerNetwork, near_borders

VOID = 255
"""In a label: no class, and no part of the loss."""


def refiner_loss(network: RefinerNetwork, image: Tensor, label: Tensor, p: Tensor) -> Tensor:
    """Cross entropy inside the band, at full size and on the coarse grid; pixels at true borders count more.

    image (B, 3, H, W) in [0, 1], label (B, H, W) int64 with void 255, coarse p (B, K, H, W); H and W multiples of 16.
    """
    band = near_borders(p, REACH)
    Q, x = network(image, p, band)
    known = (label != VOID)[:, None]
    truth = known * F.one_hot(label.masked_fill(label == VOID, 0), p.shape[1]).permute(0, 3, 1, 2).float()
    weight = (band & known) * (1 + 3 * within(borders(label), 2)[:, None].float())
    fine = -(x + 1e-4).log().gather(1, label.masked_fill(label == VOID, 0)[:, None])
    cells = F.avg_pool2d((band & known).float(), 4)
    rough = -(F.avg_pool2d(truth, 4) * (Q + 1e-4).log()).sum(1, keepdim=True)
    return (fine * weight).sum() / weight.sum().clamp(min=1) + 0.4 * (rough * cells).sum() / cells.sum().clamp(min=1)


def schedule(done: float) -> float:
    """The learning rate after the share ``done`` of the steps, of the highest: a short warm-up, a cosine to zero."""
    return min(done / 0.03, 1.0) * (1 + math.cos(math.pi * done)) / 2 + 1e-3
