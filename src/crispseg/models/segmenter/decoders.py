"""The decoders of Segmenter, from one feature map to class logits: a linear one, and the mask transformer.

Not here: the encoder (``encoder``), upsampling to the image (``crispseg.models.network``).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.decoders import Decoder, FusedDecoder

HEAD_CHANNELS = 64  # of an attention head, in the encoder and here


class SegmenterLinear(FusedDecoder):
    """A point-wise linear layer on the encoder's map. Source: Segmenter, section 3.2, "Linear".

    Raises UsageError if ``channels`` is given: there is no width to choose.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int | None = None) -> None:
        if channels is not None:
            raise UsageError("decoder 'segmenter_linear' has no width to set; leave decoder_channels out")
        super().__init__(in_channels[-1], num_classes)
        self.apply(initialise)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[-1]


class MaskTransformer(Decoder):
    """Patches and one learned embedding a class pass through transformer blocks; a class's mask is their product.

        z_M, c = blocks([proj(z); cls]),  logits = norm_K( ẑ_M ĉᵀ ),  ẑ, ĉ: projected, of unit length

    Parameters
    ----------
    in_channels
        Channels of the encoder's maps, of which the last is read.
    num_classes
        Number of classes K.
    channels
        Width D of the blocks, a multiple of 64 (the channels of a head) or less than 128; None: the encoder's.
    depth
        Number of blocks.
    dropout
        In attention's projection and the MLP.

    References
    ----------
    Segmenter, arXiv 2105.05633, section 3.2, "Mask Transformer". The layer norm over classes and the unit lengths are
    the authors' code's.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int | None = None,
        *,
        depth: int = 2,
        dropout: float = 0.1,
    ) -> None:
        from timm.models.vision_transformer import Block  # slow: not when crispseg is imported

        super().__init__()
        width = channels or in_channels[-1]
        heads = max(1, width // HEAD_CHANNELS)
        if heads > 1 and width % HEAD_CHANNELS:
            raise UsageError(f"the mask transformer's width is a multiple of {HEAD_CHANNELS}, found {width}")
        rates: dict[str, Any] = {"proj_drop": dropout, "attn_drop": dropout}
        self.proj_dec = nn.Linear(in_channels[-1], width)
        self.cls_emb = nn.Parameter(torch.empty(1, num_classes, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=nn.LayerNorm, **rates) for _ in range(depth))
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.proj_patch = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.proj_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.mask_norm = nn.LayerNorm(num_classes)
        self.product = Product()
        self.apply(initialise)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
        grid = maps[-1].shape[-2:]
        patches = self.proj_dec(maps[-1].flatten(2).transpose(1, 2))
        count = patches.shape[1]
        tokens = torch.cat([patches, self.cls_emb.expand(patches.shape[0], -1, -1)], dim=1)
        tokens = self.decoder_norm(self.blocks(tokens))
        patches = F.normalize(tokens[:, :count] @ self.proj_patch, dim=-1)
        classes = F.normalize(tokens[:, count:] @ self.proj_classes, dim=-1)
        return self.product(patches.transpose(1, 2).unflatten(2, grid), classes, self.mask_norm), []


class Product(nn.Module):
    """norm(z c): the classifier of the mask transformer. A module, so that what it reads is a map of the network's."""

    def forward(self, z: Tensor, c: Tensor, norm: nn.Module) -> Tensor:
        """Return masks (B, K, h, w) of patches (B, D, h, w) and class embeddings (B, K, D)."""
        masks = norm(z.flatten(2).transpose(1, 2) @ c.transpose(1, 2))
        return masks.transpose(1, 2).unflatten(2, z.shape[2:])


def initialise(module: nn.Module) -> None:
    """Start a linear layer, or a 1×1 convolution, as the authors do: a truncated normal of deviation 0.02, no bias."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
