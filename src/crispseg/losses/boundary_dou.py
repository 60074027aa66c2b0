"""Boundary DoU loss: the difference of two regions over their partial union."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import mean_present, prepare

MOST = 0.8


def boundary_dou(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Boundary difference over union, its mean over the classes that the batch holds.

        L_k = (Σp² + Σy² − 2Σpy) / (Σp² + Σy² − (1 + α_k) Σpy),   α_k = min(1 − 2 C_k / S_k, 0.8)

    p: probabilities of class k, y: 1 where a pixel is of k; sums over the pixels of the batch that count. S: number of
    pixels of k; C: number of those with a 4-neighbour, or an image border, that is not k. The larger a region, the
    larger α and the weight of its border.
    Source: Sun, Luo, Li: Boundary Difference Over Union Loss, MICCAI 2023, equations 2 to 4; squares and 0.8 as in the
    authors' code. Void, ours: no border.

    >>> t = torch.tensor([[[0, 0], [1, 1]]])
    >>> boundary_dou(100.0 * F.one_hot(t, 2).permute(0, 3, 1, 2), t).item()
    0.0
    """
    batch = prepare(logits, target, ignore_index)
    y, p = batch.one_hot(), batch.z.softmax(1) * batch.valid[:, None]
    size = y.sum((0, 2, 3))
    present = size > 0
    alpha = (1 - 2 * _contour(y, batch.valid) / size.clamp(min=1)).clamp(max=MOST)
    both, each = (p * y).sum((0, 2, 3)), (p**2).sum((0, 2, 3)) + size
    union = torch.where(present, each - (1 + alpha) * both, 1)
    return mean_present((each - 2 * both) / union, present)


def _contour(y: Tensor, valid: Tensor) -> Tensor:
    """The number of pixels of each class with a 4-neighbour that is not of it, nor void; what lies outside is not."""
    inner = F.pad(y + (~valid)[:, None], (1, 1, 1, 1)) > 0
    around = inner[..., :-2, 1:-1] & inner[..., 2:, 1:-1] & inner[..., 1:-1, :-2] & inner[..., 1:-1, 2:]
    return (y.bool() & ~around).sum((0, 2, 3))
