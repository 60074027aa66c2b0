"""Cross-entropy that weighs pixels near a border between classes more."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare
from crispseg.losses.distances import distance_to, label_border


def boundary_weighted(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, weight: float = 10.0, sigma: float = 5.0
) -> Tensor:
    """Boundary-weighted cross-entropy.

        L = Σ_p w_p · (−log softmax(z_p)_{t_p}) / Σ_p w_p,   w_p = 1 + w₀ exp(−d_p² / 2σ²)

    d: distance in pixels to the nearest pixel with a 4-neighbour of another class. ``weight`` is w₀, ``sigma`` σ.
    Source: the weights of U-Net (Ronneberger, Fischer, Brox, MICCAI 2015, equation 2) with the distance to the border
    instead of those to two cells, whose w₀ and σ are the defaults.

    >>> z, t = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 255]]])
    >>> round(boundary_weighted(z, t).item(), 4)
    0.6931
    """
    z, t, valid = prepare(logits, target, ignore_index)
    w = pixel_weights(t, valid, weight=weight, sigma=sigma).to(z.dtype)
    # Void is taken out before anything is multiplied by it: there a logit may be infinite.
    loss = torch.where(valid, F.cross_entropy(z, t, reduction="none"), 0)
    return (w * loss).sum() / w.sum().clamp(min=torch.finfo(z.dtype).tiny)


@torch.no_grad()
def pixel_weights(target: Tensor, valid: Tensor, *, weight: float = 10.0, sigma: float = 5.0) -> Tensor:
    """Return w (B, H, W) of labels, 0 where void."""
    d = distance_to(label_border(target, valid)).double()
    return (1 + weight * torch.exp(-(d**2) / (2 * sigma**2))) * valid
