"""Run the authors' HRNetV2 (github.com/HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR):

    python authors_hrnet.py CHECKOUT FOLDER

Its small network, with align_corners as for Cityscapes and as for ADE20K; the logits are brought to the image as its
``lib/core/function.py`` does. Needs yacs. Not here: the comparison (``test_hrnet_parity.py``), weights and images.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml

CLASSES = 7
VARIANTS = {"hrnet": False, "hrnet_aligned": True}  # name: MODEL.ALIGN_CORNERS
STAGES = """
STAGE1: {NUM_MODULES: 1, NUM_BRANCHES: 1, BLOCK: BOTTLENECK, NUM_BLOCKS: [1], NUM_CHANNELS: [32], FUSE_METHOD: SUM}
STAGE2: {NUM_MODULES: 1, NUM_BRANCHES: 2, BLOCK: BASIC, NUM_BLOCKS: [2, 2], NUM_CHANNELS: [16, 32], FUSE_METHOD: SUM}
STAGE3: {NUM_MODULES: 1, NUM_BRANCHES: 3, BLOCK: BASIC, NUM_BLOCKS: [2, 2, 2], NUM_CHANNELS: [16, 32, 64],
         FUSE_METHOD: SUM}
STAGE4: {NUM_MODULES: 1, NUM_BRANCHES: 4, BLOCK: BASIC, NUM_BLOCKS: [2, 2, 2, 2], NUM_CHANNELS: [16, 32, 64, 128],
         FUSE_METHOD: SUM}
FINAL_CONV_KERNEL: 1
"""


def main() -> None:
    checkout, folder = map(Path, sys.argv[1:])
    sys.path.insert(0, str(checkout / "lib"))
    warnings.simplefilter("ignore")
    vars(np)["int"] = int  # their code is of a time when numpy had it
    from authors_weights import filled, image, record
    from models import seg_hrnet
    from yacs.config import CfgNode

    for name, align_corners in VARIANTS.items():
        model = {"ALIGN_CORNERS": align_corners, "EXTRA": yaml.safe_load(STAGES)}
        network = seg_hrnet.HighResolutionNet(CfgNode({"MODEL": model, "DATASET": {"NUM_CLASSES": CLASSES}})).eval()
        shapes = {f"model.{key}": value.shape for key, value in network.state_dict().items()}
        state = filled(shapes | {"loss.criterion.weight": (CLASSES,)})
        network.load_state_dict({key.removeprefix("model."): x for key, x in state.items() if key in shapes})
        torch.save(state, folder / f"{name}.pth")
        images = image(90, 155)
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        with torch.no_grad():
            logits = network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=align_corners)
        record(folder, name, checkout, state, images, logits)


if __name__ == "__main__":
    main()
