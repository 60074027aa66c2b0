"""Kervadec's boundary loss: probabilities weighed by the signed distance to the true border of their class."""

import torch
from torch import Tensor

from crispseg.losses.batch import Batch, prepare
from crispseg.losses.distances import distance_to


def boundary(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Boundary loss: the distance between the borders of prediction and truth, as an integral over regions.

        L = mean_{p, k} φ_k(p) · softmax(z_p)_k

    φ_k: distance in pixels to class k, positive outside; inside −(d − 1), d the distance to what is not k; 0 everywhere
    in an image of which k has no pixel, or all. Below 0 for a good prediction: it is meant beside a loss of regions.
    Source: Kervadec, Bouchtiba, Desrosiers, Granger, Dolz, Ben Ayed: Boundary loss for highly unbalanced segmentation,
    MIDL 2019 and MedIA 2021, equation 5; distances and mean as in the authors' code. Void, ours: neither in k nor
    outside.

    >>> z, t = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]])
    >>> boundary(z, t).item()  # φ_0 = −1, 0, 1, 2 and φ_1 = 2, 1, 0, −1
    0.25
    """
    batch = prepare(logits, target, ignore_index)
    phi = signed_distance(batch)
    count = batch.valid.sum() * phi.shape[1]
    return (phi * batch.z.softmax(1)).sum() / count.clamp(min=1)


@torch.no_grad()
def signed_distance(batch: Batch) -> Tensor:
    """Return φ (B, K, H, W), 0 where void."""
    inside = batch.one_hot().bool()
    outside = ~inside & batch.valid[:, None]
    phi = torch.zeros_like(batch.z)
    both = inside.flatten(2).any(2) & outside.flatten(2).any(2)
    for b, k in both.nonzero().tolist():  # most images hold few of the classes
        out, within = inside[b, k], outside[b, k]
        phi[b, k] = distance_to(out) * within - (distance_to(within) - 1) * out
    return phi
