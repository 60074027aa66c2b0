"""``SegmentationModel``: normalise, pad, encoder, neck, decoder, upsample, un-pad. Images of any size.

Not here: how the parts are made (``build``).
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SegmentationModel(nn.Module):
    """Encoder, neck and decoder as one network from RGB images to logits at the image's own size.

    Parameters
    ----------
    encoder
        Image (B, 3, H, W) to a list of maps, finest first; has ``.channels``, ``.strides``, ``.mean``, ``.std``.
    neck
        List to the same list; ``nn.Identity()`` for none.
    decoder
        List to logits; ``heads(maps)`` lists all supervised logits.
    auxiliary
        An optional head on one of the encoder's maps, ``auxiliary(maps) -> logits``, used in training only.

    Examples
    --------
    >>> from crispseg import build_model
    >>> model = build_model("tf_efficientnet_lite0", "fcn", 5, pretrained=False).eval()
    >>> model(torch.rand(1, 3, 45, 61)).shape
    torch.Size([1, 5, 45, 61])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: nn.Module, neck: nn.Module, decoder: nn.Module, auxiliary: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.neck, self.decoder, self.auxiliary = encoder, neck, decoder, auxiliary
        facts: Any = encoder
        self.stride = max(facts.strides)
        self.register_buffer("mean", torch.tensor(facts.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts.std).view(1, -1, 1, 1), persistent=False)

    @overload
    def forward(self, images: Tensor, aux: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, aux: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...
    def forward(self, images: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits (B, K, H, W) for RGB images (B, 3, H, W) in [0, 1]; with ``aux``, also the auxiliary logits.

        Raises ValueError if ``images`` is not (B, 3, H, W).
        """
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images must be (B, {self.mean.shape[1]}, H, W), found {tuple(images.shape)}")
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))  # 0 is the mean colour
        maps = self.encoder(x)
        refined = self.neck(maps)
        if not aux:
            return _to_image(self.decoder(refined), x, height, width)
        decoder: Any = self.decoder
        heads: list[Tensor] = decoder.heads(refined)
        if self.auxiliary is not None:
            heads = [*heads, self.auxiliary(maps)]
        logits = [_to_image(head, x, height, width) for head in heads]
        return logits[0], logits[1:]


class AuxiliaryHead(nn.Module):
    """A small FCN head on the second deepest encoder map, for deep supervision (Zhao et al., PSPNet, CVPR 2017)."""

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.level = max(0, len(in_channels) - 2)
        c = in_channels[self.level]
        hidden = max(32, c // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(c, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, num_classes, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.layers(maps[self.level])


def _to_image(logits: Tensor, padded: Tensor, height: int, width: int) -> Tensor:
    full = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
    return full[..., :height, :width]
