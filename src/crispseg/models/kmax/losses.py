"""What kMaX-DeepLab learns from, for one prediction matched with the labels: classes, masks, and pixels in contrast.

Source: Wang et al.: MaX-DeepLab, CVPR 2021, section 3 (PQ-style loss, instance discrimination); Yu et al., ECCV 2022,
section 4.1; weights, temperatures and samples are those of the authors' PyTorch code.
Void pixels: no term has a gradient of their masks, classes or contrast. They enter one weight, as the authors' do: a
query without a class learns "no object" by the share of its mask that lies on void. Not here: matching (``matching``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.models.kmax.matching import Matching
from crispseg.models.kmax.transformer import Prediction

CLASS, DICE, MASK, CONTRAST = 3.0, 3.0, 0.3, 1.0
OBJECT = 0.75  # share of the weight that objects have, "no object" has the rest
TEMPERATURE = 0.3  # of the similarity of two pixels
AREA_TEMPERATURE = 1.5  # 0: pixels are drawn evenly; larger: rather from small masks
SAMPLES = 4096  # pixels in contrast, and at most a quarter of the grid's


def prediction_loss(prediction: Prediction, matching: Matching) -> Tensor:
    """The loss of one layer's prediction, on the grid of the labels.

    L = 3 L_class + 3 L_dice + 0.3 L_mask + L_contrast
    """
    return (
        CLASS * class_loss(prediction.classes, matching)
        + DICE * dice_loss(prediction.masks.flatten(2), matching)
        + MASK * mask_loss(prediction.masks.flatten(2), matching.owners)
        + CONTRAST * contrast_loss(prediction.pixels.flatten(2), matching.owners)
    )


def class_loss(classes: Tensor, matching: Matching) -> Tensor:
    """Cross-entropy of the queries' classes (B, N, K + 1), each by the weight its mask has."""
    loss = F.cross_entropy(classes.transpose(1, 2), matching.classes, reduction="none")
    share = torch.where(matching.classes < classes.shape[2] - 1, OBJECT, 1 - OBJECT)
    return (share * matching.class_weights * loss).mean()


def dice_loss(masks: Tensor, matching: Matching) -> Tensor:
    """1 − Dice of each matched mask (B, N, P), smoothed by 1, by the probability of its class; mean over N."""
    owners = matching.owners[:, None]
    own = owners == torch.arange(masks.shape[1], device=masks.device)[:, None]  # (B, N, P)
    shares = masks.softmax(dim=1) * (owners >= 0)
    dice = (2 * (shares * own).sum(-1) + 1) / (shares.sum(-1) + own.sum(-1) + 1)
    return OBJECT * ((1 - dice) * matching.mask_weights).mean()


def mask_loss(masks: Tensor, owners: Tensor) -> Tensor:
    """Cross-entropy over the N masks (B, N, P) of each pixel's owner: mean over an image's pixels, then over images."""
    loss = F.cross_entropy(masks, owners, ignore_index=-1, reduction="none")
    return _mean(loss, owners >= 0)


def contrast_loss(pixels: Tensor, owners: Tensor) -> Tensor:
    """Pixels of one mask alike, of two unlike: cross-entropy of similarities ⟨x_i, x_j⟩ / 0.3 with "same mask".

        L = mean_j −Σ_i T_ij log softmax_i(⟨x_i, x_j⟩ / 0.3),  T_ij = [o_i = o_j] / Σ_i [o_i = o_j]

    over pixels drawn without return, the likelier the smaller their mask. pixels: unit vectors (B, C, P).
    """
    samples = draw(owners, min(SAMPLES, max(1, owners.shape[1] // 4)))
    owner = owners.gather(1, samples)
    x = pixels.gather(2, samples[:, None].expand(-1, pixels.shape[1], -1))
    counted = owner >= 0
    same = (owner[:, None] == owner[:, :, None]) & counted[:, None]
    target = same / same.sum(1, keepdim=True).clamp(min=1)
    similarity = torch.matmul(x.transpose(1, 2), x) / TEMPERATURE
    similarity = similarity.masked_fill(~counted[:, :, None], torch.finfo(similarity.dtype).min / 2)
    return _mean(F.cross_entropy(similarity, target, reduction="none"), counted)


@torch.no_grad()
def draw(owners: Tensor, count: int) -> Tensor:
    """Indices (B, count) of pixels drawn without return with probability ∝ (P / area of their mask)^1.5, void last.

    Gumbel top-k: the largest log-weights plus Gumbel noise.
    """
    counted = owners >= 0
    at = owners.clamp(min=0)
    areas = torch.zeros(len(owners), int(at.max()) + 1, device=owners.device).scatter_add_(1, at, counted.float())
    logits = AREA_TEMPERATURE * (owners.shape[1] / areas.gather(1, at).clamp(min=1)).log() - 99999.0 * ~counted
    noise = torch.empty_like(logits).exponential_().clamp(min=torch.finfo(logits.dtype).tiny).log()
    return (logits - noise).topk(count, dim=1).indices


def _mean(loss: Tensor, counted: Tensor) -> Tensor:
    return ((loss * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()
