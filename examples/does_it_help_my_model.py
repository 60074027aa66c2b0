"""Does SDN help my network? Train it without and with, on the same budget, and read the verdict.

pip install ".[train]"             # in a checkout of crispseg
python examples/does_it_help_my_model.py                        # a budget of seconds, on generated scenes
python examples/does_it_help_my_model.py /path/to/data          # your images: docs/data.md shows the layout

The same from the command line, with this file as the factory's:

crispseg compare --model examples/does_it_help_my_model.py:make_model --data.root /path/to/data --out did_it_help
"""

import sys
import tempfile
from pathlib import Path

from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from crispseg.comparison import does_it_help
from crispseg.config import Config, DataConfig, ModelConfig, NeckConfig, TrainingConfig
from crispseg.data.scenes import write_scenes


def make_model(num_classes: int) -> nn.Module:
    """Put your network here. It is given images normalised with ImageNet's mean and deviation, and returns logits."""
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)


def budget(root: Path) -> Config:
    """What both trainings get. In earnest: 40 epochs, crops of 512, batches of 8 or more."""
    return Config(
        data=DataConfig(root=str(root), crop=(64, 64), workers=0),
        model=ModelConfig(factory=f"{__file__}:make_model", neck_options=NeckConfig(width=32)),
        training=TrainingConfig(epochs=1, batch_size=4, accelerator="cpu"),
    )


def main(root: Path | None, out: Path) -> None:
    if root is None:
        root = out / "scenes"
        write_scenes(root, {"train": 8, "val": 4}, height=64, width=96)
    result = does_it_help(budget(root), out / "comparison", seeds=(0,), samples=200)  # in earnest: seeds=(0, 1, 2)
    for sentence in [*result["verdicts"].values(), *result["caveats"]]:
        print(sentence)
    print(f"look at {out / 'comparison' / 'report.html'}")


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    main(given, Path(tempfile.mkdtemp(prefix="did_it_help_")))
