"""Run the authors' Segmenter (github.com/rstrudel/segmenter): python authors_segmenter.py CHECKOUT FOLDER

Needs einops, and PyYAML. Not here: the comparison (``test_segmenter_parity.py``), weights and images.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

CLASSES = 7
# name: distilled, size of the training images, size of this image, decoder
VARIANTS = {
    "segmenter_mask": (False, 96, (70, 101), {"name": "mask_transformer", "drop_path_rate": 0.0, "dropout": 0.1}),
    "segmenter_linear": (True, 64, (64, 64), {"name": "linear"}),
}
# the names of the authors' README: image, patch, width, depth, mask transformer, on 150 classes of ADE20K
PUBLISHED = {
    "Seg-T-Mask/16": (512, 16, 192, 12, True),
    "Seg-S-Mask/16": (512, 16, 384, 12, True),
    "Seg-B-Mask/16": (512, 16, 768, 12, True),
    "Seg-B/8": (512, 8, 768, 12, False),
    "Seg-L-Mask/16": (640, 16, 1024, 24, True),
}


def main() -> None:
    checkout, folder = map(Path, sys.argv[1:])
    sys.path.insert(0, str(checkout))
    warnings.simplefilter("ignore")
    from authors_weights import filled, image, record
    from segm.model.decoder import DecoderLinear, MaskTransformer
    from segm.model.segmenter import Segmenter
    from segm.model.vit import VisionTransformer

    size = {"patch_size": 16, "n_layers": 12, "d_model": 192, "n_heads": 3, "d_ff": 768}
    for name, (distilled, trained, shown, options) in VARIANTS.items():
        encoder = VisionTransformer((trained, trained), n_cls=1000, dropout=0.0, distilled=distilled, **size)
        common = {"n_cls": CLASSES, "d_encoder": 192}
        options = {key: value for key, value in options.items() if key != "name"}
        if name == "segmenter_mask":
            decoder = MaskTransformer(**common, **{**size, "n_layers": 2}, **options)
        else:
            decoder = DecoderLinear(**common, patch_size=16)
        network = Segmenter(encoder, decoder, n_cls=CLASSES).eval()
        state = filled({key: value.shape for key, value in network.state_dict().items()})
        network.load_state_dict(state)
        torch.save({"model": state, "epoch": 1}, folder / f"{name}.pth")
        images = image(*shown)
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if distilled else ((0.5,) * 3, (0.5,) * 3)
        with torch.no_grad():
            logits = network((images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        record(folder, name, checkout, state, images, logits)

    counts = {}
    for name, (side, patch, width, depth, mask) in PUBLISHED.items():
        encoder = VisionTransformer((side, side), patch, depth, width, 4 * width, width // 64, 1000)
        decoder = DecoderLinear(150, patch, width)
        if mask:
            decoder = MaskTransformer(150, patch, width, 2, width // 64, width, 4 * width, 0.0, 0.1)
        counts[name] = sum(p.numel() for part in (encoder, decoder) for p in part.parameters())
    (folder / "segmenter_sizes.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
