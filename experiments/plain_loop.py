"""README's one line in a plain PyTorch loop: smp's U-Net on ResNet-18 from random weights, images at 128×96.

    python -m experiments.plain_loop local/camvid_drives val 11 none head encoder --steps 400

AdamW at 1e-3 with a cosine, batches of 8, mirror images, cross-entropy of the logits alone. Prints a line a row. Not
here: ``crispseg train``, which also supervises the host's first answer (``experiments.study``).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import crispseg
from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU

SIZE = (128, 96)  # width, height


def pictures(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W), normalised, and labels (N, H, W) of a split in the folder format."""
    images, labels = [], []
    for path in sorted((root / "images" / split).iterdir()):
        label = Image.open(root / "labels" / split / f"{path.stem}.png").resize(SIZE, Image.Resampling.NEAREST)
        image = Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
        labels.append(torch.from_numpy(np.array(label)).long())
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (torch.stack(images) - mean) / deviation, torch.stack(labels)


def train(model: nn.Module, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """The loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, order = torch.Generator().manual_seed(seed), list[int]()
    model.train()
    for _ in range(steps):
        if len(order) < 8:
            order = torch.randperm(len(images), generator=generator).tolist()
        batch = [order.pop() for _ in range(8)]
        x, y = images[batch], labels[batch]
        if torch.rand((), generator=generator) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        loss = F.cross_entropy(model(x), y, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure(model: nn.Module, images: Tensor, labels: Tensor, classes: int) -> str:
    """MIoU, boundary F at 1, 3 and 5 px, Boundary IoU, in %."""
    metrics = {"miou": MeanIoU(classes), "boundary_f": BoundaryFScore(classes), "boundary_iou": BoundaryIoU(classes)}
    model.eval()
    for at in range(0, len(images), 10):
        for metric in metrics.values():
            metric.update(model(images[at : at + 10]).argmax(1), labels[at : at + 10])
    values = {name: metric.compute()[name].reshape(-1) for name, metric in metrics.items()}
    return "  ".join(f"{name} {' '.join(f'{100 * float(v):.1f}' for v in value)}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("split", help="what is measured")
    parser.add_argument("classes", type=int)
    parser.add_argument("rows", nargs="+", choices=["none", "head", "encoder"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, help="only so many images of the split")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = pictures(options.root, "train")
    seen, truth = (x[: options.first] for x in pictures(options.root, options.split))
    for row in options.rows:
        torch.manual_seed(options.seed)
        model = smp.Unet("resnet18", encoder_weights=None, classes=options.classes)
        torch.manual_seed(options.seed + 100)
        if row != "none":
            crispseg.attach(model, place=row)
        start = time.monotonic()
        train(model, images, labels, options.steps, options.seed)
        spent = time.monotonic() - start
        print(f"{row:8} {measure(model, seen, truth, options.classes)}  {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
