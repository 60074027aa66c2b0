"""Responses of operators as heat maps: |y| of a feature map with one scale for all that are compared.

Not here: computing responses.
"""

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from crispseg.report.colours import Picture


def heat(response: Tensor, *, quantile: float = 0.99, colour_map: str = "inferno") -> Picture:
    """Return the magnitude of a response as a heat map, black where there is none.

        m_p = √(Σ_c y_{c,p}²) / Q,  clipped to 1;  Q the ``quantile`` of the magnitude over the map

    Dividing each map by its own Q makes operators of different gain comparable: what is seen is *where* one answers.

    Parameters
    ----------
    response
        y, (C, H, W).

    Examples
    --------
    >>> heat(torch.zeros(4, 2, 3)).shape
    (2, 3, 3)
    """
    magnitude = response.detach().float().norm(dim=0)
    top = torch.quantile(magnitude, quantile)
    share = (magnitude / top.clamp_min(1e-12)).clamp(max=1).cpu().numpy()
    out: Picture = np.asarray(mpl.colormaps[colour_map](share, bytes=True))[..., :3]
    return out
