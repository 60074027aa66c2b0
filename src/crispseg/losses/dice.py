"""Dice loss: the overlap of regions, whatever their size."""

import torch
from torch import Tensor

from crispseg.losses.batch import mean_present, prepare


def dice(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Soft Dice loss, its mean over the classes that the batch holds.

        L_k = 1 − 2 Σpy / (Σp² + Σy²)

    p: probabilities of class k, y: 1 where a pixel is of k; sums over the pixels of the batch that count.
    Source: Milletari, Navab, Ahmadi: V-Net, 3DV 2016, section 3, class by class.

    >>> round(dice(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])).item(), 6)  # 1 − 2 · 0.5 / (0.5 + 1)
    0.333333
    """
    batch = prepare(logits, target, ignore_index)
    y, p = batch.one_hot(), batch.z.softmax(1) * batch.valid[:, None]
    size = y.sum((0, 2, 3))
    overlap = 2 * (p * y).sum((0, 2, 3)) / ((p**2).sum((0, 2, 3)) + size).clamp(min=torch.finfo(p.dtype).tiny)
    return mean_present(1 - overlap, size > 0)
