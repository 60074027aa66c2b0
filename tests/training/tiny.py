"""The smallest things that a training needs: a data set of six pictures and a network of three convolutions."""

import json

import numpy as np
from PIL import Image

from crispseg.config import Config, DataConfig, ModelConfig, NeckConfig, TrainingConfig

SIZE = (32, 32)
NETWORK = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.dropout = nn.Dropout2d(0.2)
        self.decoder = nn.Conv2d(8, classes, 3, padding=1)
        self.auxiliary = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        features = self.encoder(x)
        return {"out": 4 * self.decoder(self.dropout(features)), "aux": 4 * self.auxiliary(features)}  # sure of itself
"""


def write_set(root, train=5, val=3, seed=0):
    """Pictures of three classes, seen half the time, and some void; those of val have a size of their own."""
    rng = np.random.default_rng(seed)
    colours = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])
    for split, count, size in (("train", train, SIZE), ("val", val, (24, 40))):
        for i in range(count):
            label = rng.choice(3, (size[0] // 8, size[1] // 8), p=(0.6, 0.3, 0.1)).repeat(8, 0).repeat(8, 1)
            noise = rng.integers(-60, 56, (*size, 3))
            label_with_void = np.where(rng.random(size) < 0.1, 3, label)
            for kind, pixels in (("images", colours[label] + noise), ("labels", label_with_void)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(root / kind / split / f"{i}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c"], "ignore_index": 3}))
    return root


def tiny_config(root, *, seed=3, data=None, model=None, **training):
    """Two epochs of five pictures in batches of two: the third batch spans both. Crops are the pictures themselves."""
    (root / "tiny.py").write_text(NETWORK)
    still = {"crop": SIZE, "scale": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "workers": 0}
    network = {
        "factory": f"{root}/tiny.py:Tiny",
        "at": "encoder",
        "neck_options": NeckConfig(similarity="charbonnier", scale="learned", initial_scale=0.2, identity=False),
    }
    usual = {"epochs": 2, "batch_size": 2, "lr": 0.01, "warmup": 0.4, "checkpoint_every": 1, "accelerator": "cpu"}
    return Config(
        data=DataConfig(root=str(root), **{**still, **(data or {})}),
        model=ModelConfig(**(network if model is None else model)),
        training=TrainingConfig(**{**usual, **training}),
        seed=seed,
    )
