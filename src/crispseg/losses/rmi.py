"""Region Mutual Information: neighbouring pixels are predicted together, as points of nine dimensions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare

STRIDE = 4
RADIUS = 3
XI = 5e-4


def rmi(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Region mutual information loss: −(a lower bound of the mutual information of true and predicted 3×3 regions).

        L = Σ_k mean_b 1/(2d) log det(M + ξI),   M = Σ_YY − Σ_YP (Σ_PP + ξI)⁻¹ Σ_YPᵀ,   d = 9

    Y, P: the nine true and predicted values of class k in each 3×3 region of the maps, averaged 4-fold first; Σ: sums
    of products about their mean over the regions of an image; ξ = 5·10⁻⁴. A constant is left out, so L may be of
    either sign. Meant beside cross-entropy. Computed in float64.
    Source: Zhao, Wang, Yang, Cai: Region Mutual Information Loss, NeurIPS 2019, equations 8 to 15; sums (not means), ξ
    and 4 as in the authors' code and script. Ours: the softmax where theirs is a sigmoid; a region with a void cell is
    left out, and a cell's average is over its pixels that count.

    >>> t = torch.zeros(1, 24, 24, dtype=torch.long)
    >>> t[..., 12:] = 1
    >>> right = 4.0 * F.one_hot(t, 2).permute(0, 3, 1, 2)
    >>> (rmi(right, t) < rmi(right.roll(6, -1), t)).item()
    True
    """
    batch = prepare(logits, target, ignore_index)
    with torch.autocast(batch.z.device.type, enabled=False):
        weight = batch.valid[:, None].double()
        cells = _pool(weight)
        y, p = (_pool(x.double() * weight) / cells.clamp(min=1e-12) for x in (batch.one_hot(), batch.z.softmax(1)))
        if min(cells.shape[-2:]) < RADIUS:
            return batch.nothing()
        Y, P = _regions(y), _regions(p)
        counts = _regions((cells > 0).double()).amin(2, keepdim=True)  # (B, 1, 1, N)
        n = counts.sum(-1, keepdim=True)
        Y, P = ((x - (x * counts).sum(-1, keepdim=True) / n.clamp(min=1)) * counts for x in (Y, P))
        ridge = XI * torch.eye(RADIUS**2, dtype=Y.dtype, device=Y.device)
        yy, yp, pp = Y @ Y.mT, Y @ P.mT, P @ P.mT
        M = yy - yp @ torch.linalg.solve(pp + ridge, yp.mT)
        half_log_det = torch.linalg.cholesky((M + M.mT) / 2 + ridge).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        seen = (n > 0).view(-1, 1)
        loss = (half_log_det * seen).sum() / (seen.sum().clamp(min=1) * RADIUS**2)
    return loss.to(batch.z.dtype)


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, STRIDE, STRIDE, padding=STRIDE // 2)


def _regions(x: Tensor) -> Tensor:
    """The values of each 3×3 region of maps (B, K, h, w), as columns: (B, K, 9, N)."""
    height, width = (n - RADIUS + 1 for n in x.shape[-2:])
    views = [x[..., i : i + height, j : j + width] for i in range(RADIUS) for j in range(RADIUS)]
    return torch.stack(views, 2).flatten(3)
