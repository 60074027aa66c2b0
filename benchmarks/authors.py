"""The networks of papers' own code, made from checkouts of it, to be timed beside ours. Nothing of it is kept here.

Not here: that both give the same logits (``tests/models/parity``).
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 19


def segmenter(checkout: Path, decoder: str) -> nn.Module:
    """github.com/rstrudel/segmenter: ViT-Tiny of patch 16, its positions for 384×384, as timm's. Needs einops."""
    sys.path.insert(0, str(checkout))
    from segm.model.decoder import DecoderLinear, MaskTransformer
    from segm.model.segmenter import Segmenter
    from segm.model.vit import VisionTransformer

    encoder = VisionTransformer((384, 384), 16, 12, 192, 768, 3, 1000, dropout=0.0)
    linear = decoder == "segmenter_linear"
    head = DecoderLinear(CLASSES, 16, 192) if linear else MaskTransformer(CLASSES, 16, 192, 2, 3, 192, 768, 0.0, 0.1)
    return Segmenter(encoder, head, CLASSES)


def hrnet(checkout: Path, decoder: str) -> nn.Module:
    """github.com/HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR: HRNetV2-W18. Needs yacs."""
    sys.path.insert(0, str(checkout / "lib"))
    vars(np)["int"] = int  # their code is of a time when numpy had it
    from models import seg_hrnet
    from yacs.config import CfgNode

    extra: dict[str, Any] = {"FINAL_CONV_KERNEL": 1}
    for stage, modules in enumerate((1, 1, 4, 3), start=1):
        block, channels = ("BOTTLENECK", [64]) if stage == 1 else ("BASIC", [18 << branch for branch in range(stage)])
        extra[f"STAGE{stage}"] = {
            "NUM_MODULES": modules, "NUM_BRANCHES": stage, "BLOCK": block, "NUM_BLOCKS": [4] * stage,
            "NUM_CHANNELS": channels, "FUSE_METHOD": "SUM",
        }  # fmt: skip
    model = {"ALIGN_CORNERS": False, "EXTRA": extra}
    return seg_hrnet.HighResolutionNet(CfgNode({"MODEL": model, "DATASET": {"NUM_CLASSES": CLASSES}}))


def pidnet(checkout: Path, decoder: str) -> nn.Module:
    """github.com/XuJiacong/PIDNet: PIDNet-S, without its further heads, as for inference."""
    sys.path.insert(0, str(checkout))
    sys.modules["configs"] = SimpleNamespace(config=None)  # type: ignore[assignment]
    from models.pidnet import PIDNet

    return PIDNet(m=2, n=3, num_classes=CLASSES, planes=32, ppm_planes=96, head_planes=128, augment=False)


def kmax(checkout: Path, decoder: str) -> nn.Module:
    """github.com/bytedance/kmax-deeplab: their COCO network on ResNet-50, with semantic inference as in kmax_model.py.

    Their axial attention is made for one size, 32 n + 1 pixels; the network is made anew when the size changes.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/models/parity"))
    import authors_kmax

    authors_kmax.stand_ins(checkout)
    authors_kmax.CLASSES = CLASSES
    return _AtAnySize(authors_kmax)


class _AtAnySize(nn.Module):
    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.theirs = theirs
        self.made: dict[tuple[int, ...], Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, (1 - width) % 32, 0, (1 - height) % 32))
        size = self.theirs.SIZE = tuple(images.shape[-2:])
        if size not in self.made:
            self.made[size] = self.theirs.network("kmax_resnet50").to(images.device)
        head = self.made[size].sem_seg_head
        panoptic, semantic, maps = head.pixel_decoder.forward_features(self.made[size].backbone(images))
        return self.theirs.semantic_inference(head.predictor(maps, panoptic, semantic))[..., :height, :width]


# decoder: the repository, the network
NETWORKS: dict[str, tuple[str, Callable[[Path, str], nn.Module]]] = {
    "segmenter_linear": ("segmenter", segmenter),
    "segmenter_mask": ("segmenter", segmenter),
    "hrnet": ("HRNet-Semantic-Segmentation", hrnet),
    "pidnet": ("PIDNet", pidnet),
    "kmax_deeplab": ("kmax-deeplab", kmax),
}


def network(root: Path, decoder: str) -> nn.Module | None:
    """Return the authors' network with random weights, or None where ``root`` holds no checkout of their code."""
    repository, make = NETWORKS.get(decoder, ("", None))
    if make is None or not (root / repository).is_dir():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(root / repository, decoder).eval()
