"""From integer counts to scores: ratios, and means over what is there. 0/0 is NaN, "absent", and never enters a mean.

Not here: counting.
"""

import torch
from torch import Tensor


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, NaN where both are 0. Float64, except on devices that have none (MPS).

    >>> ratio(torch.tensor([1, 0, 0]), torch.tensor([2, 4, 0]))
    tensor([0.5000, 0.0000,    nan], dtype=torch.float64)
    """
    real = torch.float32 if part.device.type == "mps" else torch.float64
    return part.to(real) / whole.to(real)


def iou(overlap: Tensor) -> Tensor:
    """Return |P ∩ T| / |P ∪ T| from counts (…, 3, C) of |P ∩ T|, |P| and |T|: (…, C)."""
    both, predicted, true = overlap.unbind(-2)
    return ratio(both, predicted + true - both)


def f_score(precision: Tensor, recall: Tensor) -> Tensor:
    """Return F = 2 · precision · recall / (precision + recall); 0 if one of them is 0 or NaN, NaN if both are NaN.

    >>> f_score(torch.tensor([0.5, 0.0, float("nan")]), torch.tensor([1.0, float("nan"), float("nan")]))
    tensor([0.6667, 0.0000,    nan])
    """
    both_absent = precision.isnan() & recall.isnan()
    p, r = precision.nan_to_num(0), recall.nan_to_num(0)
    f = 2 * p * r / (p + r).clamp(min=torch.finfo(p.dtype).tiny)
    return f.masked_fill(both_absent, torch.nan)


def mean_present(per_class: Tensor) -> Tensor:
    """Return the mean over the last dimension, NaNs left out; NaN if nothing is left."""
    return per_class.nanmean(dim=-1)


def absent(per_class: Tensor) -> tuple[int, ...]:
    """Return the classes whose score is NaN everywhere in (…, C): in neither map, so nothing could be measured."""
    return tuple(per_class.isnan().reshape(-1, per_class.shape[-1]).all(0).nonzero().flatten().tolist())
