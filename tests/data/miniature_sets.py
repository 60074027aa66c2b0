"""Small data sets on disk, made as a user would have them, and ways to spoil them."""

import json

import numpy as np
from PIL import Image

from crispseg.data import ClassSet

CLASSES = ClassSet(("sky", "tree", "road"), ((0, 0, 255), (0, 128, 0), (128, 64, 128)))


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def picture(seed=0, size=(12, 16)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def label_map(seed=0, size=(12, 16), values=(0, 1, 2, 255)):
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), size)


def make_folder_set(root, splits=("train", "val"), count=3, size=(12, 16)):
    for s, split in enumerate(splits):
        for i in range(count):
            save(root / "images" / split / f"{split}_{i}.jpg", picture(10 * s + i, size))
            save(root / "labels" / split / f"{split}_{i}.png", label_map(10 * s + i, size))
    content = {"classes": CLASSES.names, "palette": CLASSES.palette, "ignore_index": 255}
    (root / "classes.json").write_text(json.dumps(content))
    return root
