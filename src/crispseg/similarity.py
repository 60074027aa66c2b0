"""Semantic similarity S(v_p, v_q) in [0, 1] between a pixel and its neighbour, as the guide v sees them.

Pure functions of the guide: ``S(centre, neighbour, scale)`` takes v at p and at q, both (B, D, H, W), and the edge
scale λ, a number or a tensor (D,), one a channel. ``charbonnier`` answers per channel, (B, D, H, W); the others once a
pixel, (B, 1, H, W). 1 means the same class as far as v can tell; λ is in units of v, and decides what counts as a step.

Source: SDN (arXiv 2302.02057) leaves S open; these are this project's options.
Charbonnier et al. 1994; Perona and Malik 1990 for the Gaussian form.

Not here: the mirrored form 1 − S (``contrast``) and anything about u.
"""

from collections.abc import Callable
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.names import SimilarityName as SimilarityName

Scale = float | Tensor
Similarity = Callable[[Tensor, Tensor, Scale], Tensor]


def charbonnier(centre: Tensor, neighbour: Tensor, scale: Scale = 1.0) -> Tensor:
    """S = 1 / √(1 + (v_q − v_p)² / λ²), per channel."""
    return torch.rsqrt(1 + ((neighbour - centre) / _per_channel(scale)) ** 2)


def gaussian(centre: Tensor, neighbour: Tensor, scale: Scale = 1.0) -> Tensor:
    """S = exp(−‖v_q − v_p‖² / (2 λ² D)), D guide channels; with λ per channel, each is measured in its own."""
    step = (neighbour - centre) / _per_channel(scale)
    return torch.exp(-(step**2).mean(dim=1, keepdim=True) / 2)


def cosine(centre: Tensor, neighbour: Tensor, scale: Scale = 1.0) -> Tensor:
    """S = max(0, ⟨v_p, v_q⟩ / (‖v_p‖ ‖v_q‖)); λ plays no part. A zero vector is similar to nothing (S = 0).

    Its gradient there is 0 too; that of ``F.cosine_similarity`` is 10⁸, and guides after a ReLU have such vectors.
    """
    return F.relu((_unit(centre) * _unit(neighbour)).sum(1, keepdim=True))


def one(centre: Tensor, neighbour: Tensor, scale: Scale = 1.0) -> Tensor:
    """S = 1: the operator is central-difference convolution with θ = 1; neither v nor λ plays a part."""
    return centre.new_ones((centre.shape[0], 1, *centre.shape[2:]))


SIMILARITIES: dict[SimilarityName, Similarity] = {
    "charbonnier": charbonnier,
    "gaussian": gaussian,
    "cosine": cosine,
    "one": one,
}
NAMES: tuple[SimilarityName, ...] = get_args(SimilarityName)
PER_CHANNEL: frozenset[SimilarityName] = frozenset({"charbonnier"})
"""The similarities that answer per channel, so that the guide must have the channels of u."""
SCALED: frozenset[SimilarityName] = frozenset({"charbonnier", "gaussian"})
"""The similarities in which λ plays a part."""


def _unit(v: Tensor) -> Tensor:
    squared = (v * v).sum(1, keepdim=True)
    return v * torch.where(squared > 0, squared, torch.inf).rsqrt()


def _per_channel(scale: Scale) -> Scale:
    return scale.view(-1, 1, 1) if isinstance(scale, Tensor) and scale.ndim else scale
