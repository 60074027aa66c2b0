"""Active Boundary Loss: a predicted border is pushed, pixel by pixel, towards the true one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare
from crispseg.losses.distances import distance_to, label_border

AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def active_boundary(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, share: float = 0.01, reach: float = 20.0
) -> Tensor:
    """Active Boundary Loss: at a predicted border the distribution should change most towards the true border.

        L = 1/|B| Σ_{i∈B} min(M_i, θ)/θ · (−log softmax_j(KL(P_i ‖ P_{i+Δj}))_{g_i}),   g_i = argmin_j M_{i+Δj}

    B: the ``share`` of the pixels of an image with the largest KL(P_i ‖ P_q) to the pixel q on the right or below.
    M: distance to the nearest border pixel of the labels; j: the 8 neighbours; θ: ``reach``. A pixel that no neighbour
    is nearer than adds 0. The neighbours' P get no gradient. Meant beside cross-entropy (and Lovász): it moves a border
    and makes none.
    Source: Wang, Zhang, Cui, Ren, Yang, An, Tan: Active Boundary Loss for Semantic Segmentation, AAAI 2022, equations 2
    to 7. Here the share is exact, where the authors raise a threshold until it is not passed; void, ours: a pair with a
    void pixel has no KL, and no border leads there.

    >>> t = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    >>> right = 5.0 * F.one_hot(t, 2).permute(0, 3, 1, 2)
    >>> active_boundary(right, t, share=0.2).item(), active_boundary(right.roll(2, -1), t, share=0.2).item() > 0
    (0.0, True)
    """
    z, t, valid = prepare(logits, target, ignore_index)
    M = distance_to(label_border(t, valid))
    log_p = z.log_softmax(1)
    n, y, x = _predicted_border(log_p.detach(), valid & M.isfinite(), share)
    if len(n) == 0:
        return z.sum() * 0
    height, width = t.shape[1:]
    log_p_i = log_p[n, :, y, x]
    p_i, fixed = log_p_i.exp(), log_p.detach()
    divergences, distances = [], []
    for dy, dx in AROUND:
        there = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        at = n, (y + dy).clamp(0, height - 1), (x + dx).clamp(0, width - 1)
        there &= valid[at]
        kl = (p_i * (log_p_i - fixed[at[0], :, at[1], at[2]])).sum(1)
        divergences.append(kl.masked_fill(~there, -torch.inf))
        distances.append(M[at].masked_fill(~there, torch.inf))
    nearest, g = torch.stack(distances, 1).min(1)
    own = M[n, y, x]
    moves = nearest < own
    loss = F.cross_entropy(torch.stack(divergences, 1)[moves], g[moves], reduction="none")
    return (loss * (own[moves].clamp(max=reach) / reach).to(z.dtype)).sum() / len(n)


def _predicted_border(log_p: Tensor, counts: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """(image, row, column) of the pixels where the prediction changes most, of those that count."""
    p, change = log_p.exp(), torch.zeros_like(log_p[:, 0])
    for dim in (-2, -1):
        n = change.shape[dim] - 1
        kl = (p.narrow(dim, 0, n) * (log_p.narrow(dim, 0, n) - log_p.narrow(dim, 1, n))).sum(1)
        kl = kl * (counts.narrow(dim, 0, n) & counts.narrow(dim, 1, n))
        mine = change.narrow(dim, 0, n)
        torch.maximum(mine, kl, out=mine)
    most = (share * counts.flatten(1).sum(1)).long().clamp(min=1)
    ranked = change.flatten(1).sort(1, descending=True).values
    least = ranked.gather(1, most[:, None] - 1)[..., None]
    found = ((change >= least) & (change > 0)).nonzero()
    return found[:, 0], found[:, 1], found[:, 2]
