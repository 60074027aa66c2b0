"""Answers of the learned refiner, kept: what a faster way to them must give again.

    PYTHONPATH=src python tests/refinement/golden/make.py

Made at commit 5fef582, whose weights are those of 64a0648, before the refiner worked on border pixels alone.
To be made again only when the weights or the method change. Not here: the test (``test_learned.py``).
"""

from pathlib import Path

import numpy as np
import torch

from crispseg.data.patchwork import CLASSES, patchwork
from crispseg.data.patchwork.coarse import one_hot, polygons, predicted
from crispseg.refinement import LearnedRefiner

HERE = Path(__file__).parent


def cases():
    """name: image uint8 (3, H, W), probabilities float16 (K, H, W), options of the refiner."""
    image, label = patchwork((9, 0), (70, 94))
    p = predicted(np.random.default_rng(0), label, CLASSES, 8.0)
    yield "soft", image, p, {}
    image, label = patchwork((9, 1), (64, 80))
    yield "hard", image, one_hot(polygons(np.random.default_rng(1), label, CLASSES, 3.0), CLASSES), {}
    image, label = patchwork((9, 2), (48, 340))
    yield "tiles", image, predicted(np.random.default_rng(2), label % 3, 3, 16.0), {"tile": 64, "reach": 11}


def main():
    for name, image, p, options in cases():
        image, p = np.ascontiguousarray(image.transpose(2, 0, 1)), p.astype(np.float16)
        refined = LearnedRefiner(**options)(torch.from_numpy(p).float(), torch.from_numpy(image).float() / 255)
        np.savez_compressed(HERE / f"{name}.npz", image=image, p=p, refined=refined.numpy(), **options)


if __name__ == "__main__":
    main()
