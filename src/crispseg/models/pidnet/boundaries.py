"""PIDNet's boundary labels, made from class labels as the authors' data code makes them, and the loss against them.

Void is our addition: what a void pixel could have touched counts nowhere. Not here: the rest of the loss (``decoder``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2  # a pixel's edge depends on the labels this far away: 1 for Sobel, 1 for its neighbours' magnitudes


def boundary_target(labels: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """Return where labels (B, H, W) have a boundary, 4 pixels wide, and where that counts; both (B, H, W), bool.

    Canny's edges of the label map, dilated by a 4×4 square. An edge that a void pixel could have made or moved is none,
    and the pixels it would have reached do not count, unless another edge reaches them; nor does void itself.

    Source: ``BaseDataset.gen_sample`` of github.com/XuJiacong/PIDNet (thresholds 0.1 and 0.2: every local maximum
    counts); there an edge is found before the image is rescaled, here after. Void: ours.

    >>> labels = torch.zeros(1, 8, 12, dtype=torch.long)
    >>> labels[..., 6:] = 1
    >>> boundary, counts = boundary_target(labels)
    >>> boundary[0, 0].long().tolist(), counts.all().item()
    ([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], True)
    """
    void = labels == ignore_index
    edges = label_edges(labels.masked_fill(void, 0))
    touched = _dilate(void, REACH, REACH)
    boundary = _dilate(edges & ~touched, 2, 1) & ~void
    return boundary, boundary | ~_dilate(touched, 2, 1)


def label_edges(labels: Tensor) -> Tensor:
    """Return Canny's edges of label maps (B, H, W), bool: the local maxima of the Sobel magnitude |∂x| + |∂y|.

    With thresholds below the smallest difference of two labels nothing is weak, so there is nothing to trace. Equal to
    OpenCV's Canny(labels, 0.1, 0.2) to the pixel. Source: Canny, PAMI 8 (6), 1986.
    """
    # In integers: a convolution may be rounded to bfloat16 by mixed precision, and ties decide here.
    x = F.pad(labels[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].long()
    down = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    dx, dy = down[..., 2:] - down[..., :-2], across[:, 2:] - across[:, :-2]
    magnitude = dx.abs() + dy.abs()
    padded = F.pad(magnitude, (1, 1, 1, 1))
    height, width = labels.shape[-2:]

    def neighbour(down: int, right: int) -> Tensor:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # The gradient's direction in eighths of a turn, with OpenCV's tangents of 22.5° and 67.5° in 15 bits.
    x15, y15 = dx.abs() * 13573, dy.abs() * 32768
    along_x, along_y = y15 < x15, y15 > x15 + dx.abs() * 65536
    falling = (dx < 0) == (dy < 0)  # towards the lower right
    diagonal = (magnitude > neighbour(-1, -1)) & (magnitude > neighbour(1, 1))
    antidiagonal = (magnitude > neighbour(-1, 1)) & (magnitude > neighbour(1, -1))
    largest = torch.where(falling, diagonal, antidiagonal)
    largest = torch.where(along_y, (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0)), largest)
    largest = torch.where(along_x, (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1)), largest)
    return largest & (magnitude > 0)


def weighted_bce(logits: Tensor, boundary: Tensor, counts: Tensor) -> Tensor:
    """Binary cross-entropy in which boundary and no boundary weigh the same in sum; 0 if no pixel counts.

        L = 1/N · Σ_p w_p · BCE(z_p, b_p),   w_p = N_0 / N where b_p = 1, N_1 / N where b_p = 0

    logits, boundary and counts: (B, H, W); N = N_0 + N_1 pixels count. Source: PIDNet, arXiv 2206.02066, l₁,
    after Xie and Tu: Holistically-Nested Edge Detection, ICCV 2015.
    """
    ones, zeros = boundary & counts, ~boundary & counts
    n = counts.sum().clamp(min=1)
    weight = ones * (zeros.sum() / n) + zeros * (ones.sum() / n)
    return F.binary_cross_entropy_with_logits(logits.float(), ones.float(), weight, reduction="sum") / n


def _dilate(mask: Tensor, before: int, after: int) -> Tensor:
    """A pixel is set if one is from ``before`` pixels before it to ``after`` pixels after it, in both directions."""
    padded = F.pad(mask[:, None].float(), (before, after, before, after))
    return F.max_pool2d(padded, before + after + 1, stride=1)[:, 0].bool()
