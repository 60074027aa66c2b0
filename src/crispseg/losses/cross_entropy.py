"""Cross-entropy, plain and of the hard pixels alone, and the weights of classes in it.

Not here: the other losses, and what a run is given (``criterion``).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare


def cross_entropy(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the pixels that count; 0 (with a gradient of 0) if there are none.

        L = Σ_p w_{t_p} · (−log softmax(z_p)_{t_p}) / Σ_p w_{t_p}

    Raises ValueError if the shapes do not fit.

    >>> z = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]])
    >>> cross_entropy(z, torch.tensor([[[0, 255]]])).item() == F.cross_entropy(z[..., 0, 0], torch.tensor([0])).item()
    True
    """
    loss, weight = _per_pixel(logits, target, ignore_index, class_weights)
    return loss.sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    threshold: float = 0.7,
    min_kept: float = 1 / 16,
) -> Tensor:
    """Cross-entropy of the hard pixels alone (online hard example mining).

    A pixel is hard if the probability of its true class is below ``threshold``; at least the share ``min_kept`` of the
    pixels that count, the hardest, is kept. Source: Shrivastava, Gupta, Girshick, CVPR 2016, in the pixel form of
    Wu, Shen, van den Hengel 2016.
    """
    loss, weight = _per_pixel(logits, target, ignore_index, class_weights)
    counts = target.flatten() != ignore_index
    loss, weight = loss.flatten()[counts], weight.flatten()[counts]
    if loss.numel() == 0:
        return logits.sum() * 0
    with torch.no_grad():
        hardness = loss / weight.clamp(min=torch.finfo(weight.dtype).tiny)
        kept = max(1, int(min_kept * loss.numel()))
        limit = min(hardness.topk(kept).values[-1].item(), -torch.log(torch.tensor(threshold)).item())
        hard = hardness >= limit
    return loss[hard].sum() / weight[hard].sum().clamp(min=torch.finfo(weight.dtype).tiny)


def class_weights(counts: Tensor, kind: Literal["median_frequency", "inverse_sqrt"]) -> Tensor:
    """Weights (K,) from pixel counts (K,), with mean 1 over the classes that occur; a class that does not has weight 1.

    ``median_frequency``: median(f) / f (Eigen and Fergus 2015); ``inverse_sqrt``: 1 / √f.

    >>> class_weights(torch.tensor([4, 1, 0]), "inverse_sqrt")
    tensor([0.6667, 1.3333, 1.0000])
    """
    frequency = counts.double() / counts.sum().clamp(min=1)
    seen = counts > 0
    raw = frequency[seen].median() / frequency if kind == "median_frequency" else frequency.rsqrt()
    return torch.where(seen, raw / raw[seen].mean(), 1.0).float()


def _per_pixel(
    logits: Tensor, target: Tensor, ignore_index: int, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    z, _, valid = prepare(logits, target, ignore_index)
    given, target = None if class_weights is None else class_weights.to(z.dtype), target.long()
    loss = F.cross_entropy(z, target, weight=given, ignore_index=ignore_index, reduction="none")
    weight = valid.to(loss.dtype)
    if given is not None:
        weight = weight * given[torch.where(valid, target, 0)]
    return loss, weight
