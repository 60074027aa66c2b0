"""DPT's encoder: a vision transformer of timm, and transformers' reassembly of its tokens into four maps.

Not here: what fuses them (``dense``), hierarchical encoders (``crispseg.models.encoders``).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models import weights
from crispseg.models.encoders import create
from crispseg.models.hosts import library

FITTING = "; what fits: vit_tiny_patch16_224, vit_small_patch16_224, vit_base_patch16_384, … of timm"


class DPTEncoder(nn.Module):
    """A vision transformer whose tokens, taken after each quarter of its blocks, become maps of four resolutions.

    The maps have 1/8, 1/4, 1/2 and all of its width, and strides of 1/4, 1/2, 1 and 2 patches, as in DPT-Base. The
    class token is projected into every patch. Images of any size: the position embedding is interpolated.

    Parameters
    ----------
    name
        A timm vision transformer, such as ``"vit_tiny_patch16_224"``.
    pretrained
        As in :class:`crispseg.models.TimmEncoder`.

    Raises UsageError if it is none, or its patches have no quarter, or its weights or transformers cannot be had.
    Source: Ranftl, Bochkovskiy, Koltun, ICCV 2021, section 3 (readout "project").
    """

    def __init__(self, name: str, pretrained: bool | str | Path = True) -> None:
        super().__init__()
        hf = library.transformers("dpt")
        try:
            body: Any = create(name, download=pretrained is True, num_classes=0, dynamic_img_size=True)
        except UsageError as error:
            raise UsageError(str(error) + (FITTING if "like this" in str(error) else "")) from error
        if pretrained and pretrained is not True:
            weights.load_encoder(body, pretrained)
        patch = getattr(getattr(body, "patch_embed", None), "patch_size", (0, 0))[0]
        if not patch or patch % 4 or getattr(body, "cls_token", None) is None:
            raise UsageError(
                f"decoder 'dpt' reads a vision transformer with a class token; encoder {name!r} is none{FITTING}"
            )
        body.norm = nn.Identity()  # the taps are before it
        self.body: Any = body
        width, depth = body.embed_dim, len(body.blocks)
        self.taps = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        self.patch: int = patch
        self.channels = [width // 8, width // 4, width // 2, width]
        self.strides = [patch // 4, patch // 2, patch, 2 * patch]
        settings = getattr(body, "pretrained_cfg", None) or {}
        self.mean: tuple[float, ...] = tuple(settings.get("mean", (0.5, 0.5, 0.5)))
        self.std: tuple[float, ...] = tuple(settings.get("std", (0.5, 0.5, 0.5)))
        small = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "fusion_hidden_size": 8}
        host = hf.DPTForSemanticSegmentation(
            hf.DPTConfig(hidden_size=width, neck_hidden_sizes=self.channels, use_auxiliary_head=False, **small)
        )
        self.reassemble = host.neck.reassemble_stage
        library.restart(self.reassemble)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, H / stride_i, W / stride_i) of a normalised image (B, 3, H, W)."""
        taken = self.body.forward_intermediates(
            x, indices=self.taps, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        tokens = [torch.cat([prefix[:, :1], patches], dim=1) for patches, prefix in taken]
        height, width = (n // self.patch for n in x.shape[-2:])
        return self.reassemble(tokens, height, width)
