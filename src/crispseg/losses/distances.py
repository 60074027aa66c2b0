"""Where labels meet, and how far from there a pixel is. Void makes no border. On the CPU, by scipy.

Not here: what a loss makes of a distance.
"""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def label_border(target: Tensor, valid: Tensor) -> Tensor:
    """Return where a pixel has a 4-neighbour of another class; (B, H, W), bool. A pair with a void pixel is no border.

    >>> label_border(torch.tensor([[[0, 0, 1, 1, 2]]]), torch.tensor([[[True, True, True, True, False]]]))
    tensor([[[False,  True,  True, False, False]]])
    """
    border = torch.zeros_like(valid)
    for dim in (-2, -1):
        n = target.shape[dim]
        a, b = target.narrow(dim, 0, n - 1), target.narrow(dim, 1, n - 1)
        differ = (a != b) & valid.narrow(dim, 0, n - 1) & valid.narrow(dim, 1, n - 1)
        border.narrow(dim, 0, n - 1).logical_or_(differ)
        border.narrow(dim, 1, n - 1).logical_or_(differ)
    return border


def distance_to(marked: Tensor) -> Tensor:
    """Return the Euclidean distance in pixels to the nearest marked pixel of each map (…, H, W), float32; inf if none.

    >>> distance_to(torch.tensor([[True, False, False], [False, False, False]]))
    tensor([[0.0000, 1.0000, 2.0000],
            [1.0000, 1.4142, 2.2361]])
    """
    maps = marked.flatten(0, -3) if marked.ndim > 2 else marked[None]
    found = np.full(maps.shape, np.inf, np.float32)
    for out, one in zip(found, maps.cpu().numpy(), strict=True):
        if one.any():
            out[:] = distance_transform_edt(~one)
    return torch.from_numpy(found).view(marked.shape).to(marked.device)
