"""What every loss starts from: logits in full precision, labels, and which pixels count.

Not here: the losses; distances (``distances``).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Batch(NamedTuple):
    """``z``: logits (B, K, H, W), float32 or float64; ``target``: labels (B, H, W), 0 if void; ``valid``: not void."""

    z: Tensor
    target: Tensor
    valid: Tensor

    def one_hot(self) -> Tensor:
        """Return y (B, K, H, W): 1 for the class of a pixel; 0 everywhere where it is void."""
        y = F.one_hot(self.target, self.z.shape[1]).permute(0, 3, 1, 2)
        return y.to(self.z.dtype) * self.valid[:, None]

    def nothing(self) -> Tensor:
        """Return the loss of no pixel at all: 0, with a gradient of 0."""
        return self.z.sum() * 0


def prepare(logits: Tensor, target: Tensor, ignore_index: int) -> Batch:
    """Check and convert; half precision becomes float32. ValueError if the shapes do not fit."""
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"logits (B, K, H, W) and target (B, H, W) expected, found {logits.shape} and {target.shape}")
    z = logits if logits.dtype == torch.float64 else logits.float()
    valid = target != ignore_index
    return Batch(z, torch.where(valid, target, 0).long(), valid)


def mean_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean of ``values`` (K,) over the classes that are ``present`` (K,); 0 if none is. NaN elsewhere is left out."""
    kept = torch.where(present, values, 0)
    return kept.sum() / present.sum().clamp(min=1)
