"""The encoder of Segmenter: a timm Vision Transformer for images of any size, its patch tokens as one feature map.

Not here: decoders (``decoders``), padding to whole patches (``crispseg.models.network``).
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.encoders import normalisation, with_weights

FITTING = "; what fits is a vision transformer of timm: vit_tiny_patch16_224, vit_small_patch16_384, …"


class ViTEncoder(nn.Module):
    """A timm ViT as a feature map of stride P, the patch size: [x_cls; x_1 … x_N] → blocks → norm → (B, D, H/P, W/P).

    Position embeddings are interpolated bilinearly to the image's grid, as the authors do; class, distillation and
    register tokens take part in attention and are dropped at the end. Layer norm has the authors' ε = 1e-5 (timm's ViTs
    have 1e-6) and blocks are dropped with a rate that grows to ``drop_path``.

    Parameters
    ----------
    name
        A timm name of a plain ViT with position embeddings, such as ``"vit_tiny_patch16_384"``.
    pretrained
        As in :class:`crispseg.models.TimmEncoder`.
    image_size
        Side of the images that the position embeddings are for; None: the name's own.
    drop_path
        Rate of stochastic depth at the last block (the paper's: 0.1, section 4.1).

    Raises
    ------
    UsageError
        ``name`` is unknown or no such ViT.

    References
    ----------
    Segmenter, arXiv 2105.05633, section 3.1.

    Examples
    --------
    >>> encoder = ViTEncoder("vit_tiny_patch16_224", pretrained=False).eval()
    >>> encoder.channels, encoder.strides, [tuple(f.shape) for f in encoder(torch.rand(1, 3, 32, 48))]
    ([192], [16], [(1, 192, 2, 3)])
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str | Path = True,
        *,
        image_size: int | None = None,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        size = {} if image_size is None else {"img_size": image_size}
        options = {"num_classes": 0, "fc_norm": False, "dynamic_img_size": True, "drop_path_rate": drop_path}
        try:
            body: Any = with_weights(name, pretrained, **options, **size)
        except UsageError as error:
            raise UsageError(str(error) + (FITTING if "like this" in str(error) else "")) from error
        if getattr(body, "pos_embed", None) is None:
            raise UsageError(f"encoder {name!r} is not a ViT with position embeddings{FITTING}")
        body.attn_pool = None  # some timm ViTs pool by attention, which no map needs
        for module in body.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
        self.body = body
        self.channels: list[int] = [body.embed_dim]
        self.strides: list[int] = [body.patch_embed.patch_size[0]]
        self.mean, self.std = normalisation(body)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the map (B, D, H/P, W/P) of a normalised image (B, 3, H, W) of whole patches, in a list."""
        patches = self.body.patch_embed(x)  # (B, H/P, W/P, D)
        grid = patches.shape[1:3]
        tokens = self._positioned(patches.flatten(1, 2), grid)
        tokens = self.body.norm_pre(self.body.patch_drop(self.body.pos_drop(tokens)))
        tokens = self.body.norm(self.body.blocks(tokens))
        return [tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)]

    def _positioned(self, patches: Tensor, grid: torch.Size) -> Tensor:
        """Add the position embeddings and put the other tokens in front. Some ViTs embed no position of those."""
        named = (getattr(self.body, name, None) for name in ("cls_token", "dist_token", "reg_token"))
        others = [token.expand(patches.shape[0], -1, -1) for token in named if token is not None]
        count = 0 if self.body.no_embed_class else sum(token.shape[1] for token in others)
        embeddings = self.body.pos_embed
        if grid != self.body.patch_embed.grid_size:
            plane = embeddings[:, count:].transpose(1, 2).unflatten(2, self.body.patch_embed.grid_size)
            plane = F.interpolate(plane, size=grid, mode="bilinear", align_corners=False)
            embeddings = torch.cat([embeddings[:, :count], plane.flatten(2).transpose(1, 2)], dim=1)
        if count:
            return torch.cat([*others, patches], dim=1) + embeddings
        return torch.cat([*others, patches + embeddings], dim=1)
