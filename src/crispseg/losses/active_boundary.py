"""Active Boundary Loss: a predicted border is pushed, pixel by pixel, towards the true one."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.losses.batch import prepare
from crispseg.losses.distances import distance_to

AROUND = [(1, 0), (-1, 0), (0, -1), (0, 1), (-1, 1), (1, 1), (-1, -1), (1, -1)]
LEAST, GROWTH = 1e-5, 1.2


def active_boundary(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    share: float = 0.01,
    reach: float = 20.0,
    smoothing: float = 0.2,
) -> Tensor:
    """Active Boundary Loss: at a predicted border the distribution should change most towards the true border.

        L = mean_i min(M_i, θ)/θ · (−Σ_j s_ij log softmax_j(KL(P_{i+Δj} ‖ P_i)))
        s_ij = 0.8 at argmin_j M_{i+Δj}, 0.025 elsewhere

    i: the pixels where the sum of KL(P_i ‖ P_q) to the pixels q on the right and below is large, and those around them;
    the threshold, 10⁻⁵ at first, grows by 1.2 until at most the ``share`` of an image's pixels passes it. A pixel to
    which no neighbour is as near is left out. M_i: max(d − 1, 0), d the distance to the nearest pixel whose right or
    lower neighbour is of another class; θ: ``reach``; j: the 8 neighbours, whose P get no gradient. Meant beside
    cross-entropy and a loss of regions: it moves a border and makes none.
    Source: Wang, Zhang, Cui, Ren, Yang, An, Tan: Active Boundary Loss for Semantic Segmentation, AAAI 2022, equations 2
    to 7; order of the KL, M, threshold and smoothing as in the authors' code, which has no void. Ours: the threshold is
    each image's own; void makes no border, a pair with it has no KL, and no way leads there.

    >>> t = torch.zeros(1, 12, 12, dtype=torch.long)
    >>> t[..., 6:] = 1
    >>> right = 5.0 * F.one_hot(t, 2).permute(0, 3, 1, 2)
    >>> (active_boundary(right, t, share=0.2) < active_boundary(right.roll(3, -1), t, share=0.2)).item()
    True
    """
    z, t, valid = prepare(logits, target, ignore_index)
    M = (distance_to(_border(t, valid)) - 1).clamp(min=0)
    log_p = z.log_softmax(1)
    n, y, x = _predicted_border(log_p.detach(), valid & M.isfinite(), share)
    height, width = t.shape[1:]
    log_p_i, fixed = log_p[n, :, y, x], log_p.detach()
    divergences, distances = [], []
    for dy, dx in AROUND:
        there = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        j, i = (y + dy).clamp(0, height - 1), (x + dx).clamp(0, width - 1)
        log_p_j, counts = fixed[n, :, j, i], valid[n, j, i]
        divergences.append((log_p_j.exp() * (log_p_j - log_p_i)).sum(1).where(counts, 0))
        distances.append(M[n, j, i].masked_fill(~(there & counts), torch.inf))
    nearest, goal = (torch.stack(distances, 1) if len(n) else M.new_zeros(0, len(AROUND))).min(1)
    own = M[n, y, x]
    moves = nearest <= own
    log_q = torch.stack(divergences, 1)[moves].log_softmax(1)
    s = torch.full_like(log_q, smoothing / len(AROUND)).scatter_(1, goal[moves, None], 1 - smoothing)
    loss = -(s * log_q).sum(1) * (own[moves].clamp(max=reach) / reach).to(z.dtype)
    return loss.sum() / moves.sum().clamp(min=1)


def _border(t: Tensor, valid: Tensor) -> Tensor:
    """Pixels whose right or lower neighbour is of another class; (B, H, W), bool."""
    border = torch.zeros_like(valid)
    for dim in (-2, -1):
        n = t.shape[dim] - 1
        differ = (t.narrow(dim, 0, n) != t.narrow(dim, 1, n)) & valid.narrow(dim, 0, n) & valid.narrow(dim, 1, n)
        border.narrow(dim, 0, n).logical_or_(differ)
    return border


def _predicted_border(log_p: Tensor, counts: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """(image, row, column) of the pixels that count where the prediction changes, or next to where it does."""
    p, change = log_p.exp(), torch.zeros_like(log_p[:, 0])
    for dim in (-2, -1):
        n = change.shape[dim] - 1
        kl = (p.narrow(dim, 0, n) * (log_p.narrow(dim, 0, n) - log_p.narrow(dim, 1, n))).sum(1)
        change.narrow(dim, 0, n).add_(kl.where(counts.narrow(dim, 0, n) & counts.narrow(dim, 1, n), 0))
    passed = torch.zeros_like(counts)
    for out, c, here in zip(passed, change, counts, strict=True):
        out.copy_(c > _threshold(c.flatten(), int(share * int(here.sum()))))
    wide = F.max_pool2d(passed[:, None].float(), 3, 1, 1)[:, 0] > 0
    found = (wide & counts).nonzero()
    return found[:, 0], found[:, 1], found[:, 2]


def _threshold(change: Tensor, most: int) -> float:
    """The smallest 10⁻⁵ · 1.2^m that at most ``most`` of the values pass."""
    if most >= len(change):
        return LEAST
    largest = float(change.topk(most + 1).values[-1])  # must not pass
    return LEAST * GROWTH ** max(0, math.ceil(math.log(max(largest, LEAST) / LEAST) / math.log(GROWTH) - 1e-9))
