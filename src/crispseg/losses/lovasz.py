"""Lovász-softmax: the convex surrogate of the IoU."""

import torch
from torch import Tensor

from crispseg.losses.batch import prepare


def lovasz(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Lovász-softmax: the Lovász extension of the Jaccard loss of each class, its mean over those that the batch holds.

        L_k = Σ_i m_i · (Δ({1 … i}) − Δ({1 … i − 1})),   m: the errors |y − p|, the largest first

    Δ(E) = 1 − IoU when exactly the pixels E are wrong. The pixels are those of the batch that count.
    Source: Berman, Rannen Triki, Blaschko: The Lovász-Softmax Loss, CVPR 2018, equations 8 to 11.

    >>> lovasz(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])).item()
    0.5
    """
    batch = prepare(logits, target, ignore_index)
    p = batch.z.softmax(1).transpose(0, 1)[:, batch.valid]
    labels = batch.target[batch.valid]
    losses = [_of_class(p[k], (labels == k).to(p.dtype)) for k in labels.unique().tolist()]
    return torch.stack(losses).mean() if losses else batch.nothing()


def _of_class(p: Tensor, y: Tensor) -> Tensor:
    errors, order = (y - p).abs().sort(descending=True)
    true = y[order]
    total = true.sum()
    missed, wrong = true.cumsum(0), (1 - true).cumsum(0)
    jaccard = 1 - (total - missed) / (total + wrong)
    gain = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors * gain).sum()  # not a product of vectors, which autocast would round
