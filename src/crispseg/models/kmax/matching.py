"""Which query answers for which class: Hungarian matching of masks with the classes of a label map.

Source: Wang et al.: MaX-DeepLab, CVPR 2021, equations 6 to 9 (the PQ-style similarity), which kMaX-DeepLab takes over;
a class present in an image is one mask. Not here: the losses of the matched pairs (``losses``).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crispseg.models.kmax.transformer import Prediction

LEAST = 1e-5  # no weight is below


class Matching(NamedTuple):
    """What each query has to learn.

    classes: (B, N), K for a query without a mask; owners: (B, P), the query each pixel belongs to, −1 for void;
    class_weights: (B, N), how well the query's mask fits, or lies on void if it has none; mask_weights: (B, N), the
    probability it gives to its class, 0 without one.
    """

    classes: Tensor
    owners: Tensor
    class_weights: Tensor
    mask_weights: Tensor


@torch.no_grad()
def match(prediction: Prediction, labels: Tensor) -> Matching:
    """Match queries one to one with the classes present, to the largest total of P(class) · Dice(mask).

        Dice(n, k) = 2 Σ_p a_n(p) [t_p = k] / (Σ_p a_n(p) [t_p ≠ void] + Σ_p [t_p = k])

    Parameters
    ----------
    prediction
        N masks a = softmax over N on a grid of P pixels.
    labels
        (B, P); K is void. Of classes beyond the N best the pixels become void.

    Raises ValueError if a label is neither a class nor K.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and only training needs it

    batch, queries, objects = prediction.classes.shape
    k = objects - 1
    if labels.numel() and (labels.min() < 0 or labels.max() > k):
        raise ValueError(f"labels must be in 0 … {k - 1}, found {labels.min().item()} … {labels.max().item()}")
    shares = prediction.masks.flatten(2).softmax(dim=1)
    present = labels[:, None] == torch.arange(k, device=labels.device)[:, None]  # (B, K, P)
    inside = shares * (labels < k)[:, None]
    overlap = torch.matmul(inside, present.to(inside.dtype).transpose(1, 2))
    areas = present.sum(-1)
    dice = overlap / ((inside.sum(-1)[..., None] + areas[:, None]) / 2 + LEAST)
    probability = prediction.classes.softmax(dim=-1)[..., :k]

    classes = torch.full((batch, queries), k)
    owner_of = torch.full((batch, objects), -1)
    gains = (dice * probability).nan_to_num().cpu()  # a loss that is not finite is the trainer's to tell
    for b, seen in enumerate((areas > 0).cpu()):
        candidates = seen.nonzero()[:, 0]
        rows, columns = map(torch.as_tensor, linear_sum_assignment(gains[b][:, candidates].numpy(), maximize=True))
        classes[b, rows] = candidates[columns]
        owner_of[b, candidates[columns]] = rows
    classes, owner_of = classes.to(labels.device), owner_of.to(labels.device)

    owners = owner_of.gather(1, labels)
    matched, at = classes < k, classes.clamp(max=k - 1)[..., None]
    on_void = (shares * (owners < 0)[:, None]).sum(-1) / (shares.sum(-1) + LEAST)
    class_weights = torch.where(matched, dice.gather(2, at)[..., 0], on_void).clamp(min=LEAST)
    mask_weights = probability.gather(2, at)[..., 0].clamp(min=LEAST) * matched
    return Matching(classes, owners, class_weights, mask_weights)
