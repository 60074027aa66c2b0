"""Draw the picture of docs/refinement.md, a scene and its mask before and after refining: python docs/draw_refine.py

The scene is generated as for the demo, by other code than the refiner's training pictures. Its mask is the truth
through a grid of stride 16. Not here: what refining gains (``experiments.refiners``).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import crispseg
from crispseg.data import ClassSet
from crispseg.data.scenes import NAMES, PALETTE, scene
from crispseg.inference import overlay

PICTURE = Path(__file__).parent / "images" / "refine.webp"
STRIDE, SEED, GAP = 16, 5, 6


def main() -> None:
    """Blur, refine, and put picture, coarse mask and crisp mask side by side."""
    image, label = (torch.from_numpy(array) for array in scene(SEED))
    image, classes = image.permute(2, 0, 1).contiguous(), ClassSet(NAMES, PALETTE)
    exact = F.one_hot(label.long(), len(classes)).permute(2, 0, 1)[None].float()
    coarse = F.interpolate(F.avg_pool2d(exact, STRIDE), exact.shape[-2:], mode="bilinear")[0]
    crisp = crispseg.refine(image, coarse)
    panels = [image, *(overlay(image, mask, classes) for mask in (coarse.argmax(0), torch.as_tensor(crisp)))]
    white = torch.full((3, image.shape[1], GAP), 255, dtype=torch.uint8)
    row = torch.cat([panels[0], white, panels[1], white, panels[2]], dim=2)
    picture = Image.fromarray(row.permute(1, 2, 0).numpy())
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(
        PICTURE, quality=80, method=6
    )


if __name__ == "__main__":
    main()
