"""Skeleton recall: how much of the middle line of each thing is found. For thin things."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import Batch, mean_present, prepare
from crispseg.losses.thinning import skeleton


def skeleton_recall(logits: Tensor, target: Tensor, *, ignore_index: int = 255, width: int = 2) -> Tensor:
    """Skeleton recall loss, its mean over the classes that the batch holds.

        L_k = 1 − Σ p s / Σ s,   s: the skeleton of class k, dilated ``width`` times by a cross, inside the class

    It asks for recall alone: meant beside a loss that punishes false pixels. Skeletons are made on the CPU.
    Source: Kirchhoff et al.: Skeleton Recall Loss for Connectivity Conserving and Resource Efficient Segmentation of
    Thin Tubular Structures, ECCV 2024, equations 2 and 3 and algorithm 1. There the foreground has one skeleton, and
    the background none; here each class has its own.

    >>> t = torch.zeros(1, 7, 9, dtype=torch.long)
    >>> t[:, 3] = 1
    >>> skeleton_recall(torch.zeros(1, 2, 7, 9), t).item()
    0.5
    """
    batch = prepare(logits, target, ignore_index)
    s = _tubes(batch, width)
    total = s.sum((0, 2, 3))
    found = (batch.z.softmax(1) * s).sum((0, 2, 3)) / total.clamp(min=1)
    return mean_present(1 - found, total > 0)


@torch.no_grad()
def _tubes(batch: Batch, width: int) -> Tensor:
    y = batch.one_hot()
    s = torch.zeros_like(y)
    for b, k in y.flatten(2).any(2).nonzero().tolist():
        s[b, k] = torch.from_numpy(skeleton(y[b, k].cpu().numpy() > 0)).to(s)
    for _ in range(width):
        rows, columns = F.max_pool2d(s, (3, 1), 1, (1, 0)), F.max_pool2d(s, (1, 3), 1, (0, 1))
        s = torch.maximum(rows, columns)
    return s * y
