"""The loss of mask classification, in which void pixels count nowhere.

    L = Σ_layers  λ_class · CE(c, k_π)  +  1/M · Σ_{(q, m) ∈ π}  λ_mask · ℓ(z_q, y_m) + λ_dice · dice(z_q, y_m)

c: class logits of the queries, k_π: the class each is matched to or "no object"; z: mask logits, y: the M masks of the
classes that occur, π: the cheapest matching of the two. Every sum over pixels has weights w: 0 where a pixel is void.

This is the loss that transformers' MaskFormer and Mask2Former compute, which know no void: there a void pixel is
"outside" of every mask. Without void the two are equal, and the tests hold them to it.
Sources: Cheng, Schwing, Kirillov, NeurIPS 2021, section 3; Cheng et al., Mask2Former, CVPR 2022, section 3.3.
Not here: the networks (``mask_classification``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PixelLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of mask logits: the loss of each pixel if it belongs to the mask, and if it does not."""
Layer = tuple[Tensor, Tensor]
"""What a layer predicts: class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""


def binary_cross_entropy(z: Tensor) -> tuple[Tensor, Tensor]:
    """−log σ(z) and −log(1 − σ(z))."""
    return F.softplus(-z), F.softplus(z)


def focal(z: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> tuple[Tensor, Tensor]:
    """α(1 − p)^γ (−log p) and (1 − α)p^γ (−log(1 − p)) with p = σ(z). Source: Lin et al., ICCV 2017, equation 5."""
    p = z.sigmoid()
    inside, outside = binary_cross_entropy(z)
    return alpha * (1 - p) ** gamma * inside, (1 - alpha) * p**gamma * outside


@dataclass(frozen=True, kw_only=True)
class Points:
    """Where the mask losses are computed: ``count`` random points, three quarters of them where the mask is unsure."""

    count: int
    oversample: float
    important: float


@dataclass(frozen=True, kw_only=True)
class MaskLoss:
    """The loss of a layer; ``class_``, ``mask`` and ``dice`` are the λ of the loss and of the matching's cost.

    no_object: weight of the class "no object"; points: None computes the mask losses at every pixel.

    >>> loss = MaskLoss(class_=1.0, mask=20.0, dice=1.0, no_object=0.1, pixel_loss=focal)
    >>> layer = torch.zeros(1, 8, 3), torch.zeros(1, 8, 4, 4)  # 8 queries, 2 classes
    >>> loss((layer,), torch.full((1, 16, 16), 255), ignore_index=255).item()
    0.0
    """

    class_: float
    mask: float
    dice: float
    no_object: float
    pixel_loss: PixelLoss
    points: Points | None = None

    def __call__(self, layers: tuple[Layer, ...], target: Tensor, ignore_index: int) -> Tensor:
        """Return the loss of all layers against labels (B, H, W); 0, with a gradient of 0, if all of them are void."""
        with torch.autocast(target.device.type, enabled=False):
            void = target == ignore_index
            present = [labels[~v].unique() for labels, v in zip(target, void, strict=True)]
            masks = [(labels == k[:, None, None]).float() for labels, k in zip(target, present, strict=True)]
            if not any(k.numel() for k in present):
                return torch.stack([x.float().sum() for layer in layers for x in layer]).sum() * 0
            losses = [self._layer(c.float(), z.float(), present, masks, void.float()) for c, z in layers]
            return torch.stack(losses).sum()

    def _layer(self, c: Tensor, z: Tensor, present: list[Tensor], masks: list[Tensor], void: Tensor) -> Tensor:
        matches = [self._match(*image) for image in zip(c, z, present, masks, void, strict=True)]
        matched = torch.cat([z[b, q] for b, (q, _) in enumerate(matches)])
        y = torch.cat([masks[b][m] for b, (_, m) in enumerate(matches)])
        v = torch.cat([void[b].expand(len(q), -1, -1) for b, (q, _) in enumerate(matches)])
        z_p, y_p, w = self._at_points(matched[:, None], y[:, None], v[:, None])
        inside, outside = self.pixel_loss(z_p)
        pixels = (w * (y_p * inside + (1 - y_p) * outside)).sum(1) / _positive(w.sum(1))
        p = w * z_p.sigmoid()
        dice = 1 - (2 * (p * y_p).sum(1) + 1) / (p.sum(1) + (w * y_p).sum(1) + 1)
        count = sum(k.numel() for k in present)
        return self.class_ * self._classes(c, present, matches) + (self.mask * pixels + self.dice * dice).sum() / count

    def _classes(self, c: Tensor, present: list[Tensor], matches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Cross-entropy of every query's class, in the images that are not void as a whole."""
        no_object = c.shape[2] - 1
        targets = torch.full(c.shape[:2], no_object, device=c.device)
        for b, (q, m) in enumerate(matches):
            targets[b, q] = present[b][m].long()
        seen = torch.tensor([bool(k.numel()) for k in present], device=c.device)
        weight = c.new_ones(no_object + 1)
        weight[-1] = self.no_object
        return F.cross_entropy(c[seen].flatten(0, 1), targets[seen].flatten(), weight=weight)

    @torch.no_grad()
    def _match(self, c: Tensor, z: Tensor, present: Tensor, masks: Tensor, void: Tensor) -> tuple[Tensor, Tensor]:
        """The cheapest matching (queries, masks) of one image."""
        from scipy.optimize import linear_sum_assignment

        if not present.numel():
            return present.long(), present.long()
        if self.points is None:
            z, size = z.flatten(1), z.shape[-2:]
            y, v = (F.interpolate(x[None], size, mode="nearest")[0].flatten(1) for x in (masks, void[None]))
        else:
            where = torch.rand(1, self.points.count, 2, device=z.device)
            z, y, v = (_sample(x[None], where)[0] for x in (z, masks, void[None]))
        y, w = _counted(y, v)
        inside, outside = self.pixel_loss(z)
        pixels = ((w * inside) @ y.T + (w * outside) @ (1 - y).T) / _positive(w.sum())
        p = w * z.sigmoid()
        dice = 1 - (2 * p @ y.T + 1) / (p.sum(1, keepdim=True) + (w * y).sum(1) + 1)
        cost = self.mask * pixels - self.class_ * c.softmax(-1)[:, present.long()] + self.dice * dice
        largest = torch.finfo(cost.dtype).max  # a broken prediction is the trainer's to report, not the matching's
        queries, chosen = linear_sum_assignment(cost.nan_to_num(largest, largest, largest).cpu())
        return torch.as_tensor(queries, device=z.device), torch.as_tensor(chosen, device=z.device)

    def _at_points(self, z: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits, masks and weights (N, P) where the mask losses look, of (N, 1, h, w) and twice (N, 1, H, W)."""
        if self.points is None:
            z = F.interpolate(z, y.shape[-2:], mode="bilinear", align_corners=False)
            return z.flatten(1), *_counted(y.flatten(1), v.flatten(1))
        n, wanted = len(z), int(self.points.important * self.points.count)
        with torch.no_grad():
            where = torch.rand(n, int(self.points.oversample * self.points.count), 2, device=z.device)
            unsure = -_sample(z, where)[:, 0].abs()
            unsure = unsure.masked_fill(_sample(v, where)[:, 0] >= 0.5, -torch.inf)
            best = unsure.topk(wanted, dim=1).indices
            anywhere = torch.rand(n, self.points.count - wanted, 2, device=z.device)
            where = torch.cat([where.gather(1, best[..., None].expand(-1, -1, 2)), anywhere], dim=1)
        return _sample(z, where)[:, 0], *_counted(_sample(y, where)[:, 0], _sample(v, where)[:, 0])


def _sample(x: Tensor, where: Tensor) -> Tensor:
    """Bilinear values (N, C, P) of maps (N, C, H, W) at points (N, P, 2), x before y, in [0, 1]."""
    return F.grid_sample(x, 2 * where[:, :, None] - 1, align_corners=False)[..., 0]


def _counted(y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Masks and weights where the share v is void: a point that is void by half or more weighs nothing.

    Beside it, between two pixels, a mask is the share of what is not void.
    """
    return y / (1 - v).clamp(min=0.5), (v < 0.5).to(y.dtype)  # the clamp touches only what weighs nothing


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
