"""Focal loss: cross-entropy that looks away from what is already sure."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare


def focal(logits: Tensor, target: Tensor, *, ignore_index: int = 255, gamma: float = 2.0) -> Tensor:
    """Focal loss, its mean over the pixels that count.

        L = mean_p (1 − q_p)^γ · (−log q_p),   q_p = softmax(z_p)_{t_p}

    Source: Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection, ICCV 2017, equation 4.

    >>> round(focal(torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]])).item(), 6) == round(0.25 * 0.693147, 6)
    True
    """
    z, t, valid = prepare(logits, target, ignore_index)
    # Void is taken out before anything is multiplied by it: there a logit may be infinite.
    loss = torch.where(valid, F.cross_entropy(z, t, reduction="none"), 0)
    doubt = -torch.expm1(-loss)
    # Below γ = 1 the power has no slope at 0, where a pixel is sure.
    return (doubt.clamp(min=torch.finfo(z.dtype).tiny) ** gamma * loss).sum() / valid.sum().clamp(min=1)
