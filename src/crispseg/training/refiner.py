"""``train_refiner``: the learned refiner's weights, from generated pictures and masks alone. No data set is read.

Each step paints a few new pictures (``crispseg.data.patchwork``), keeps the last ones, and shows the network crops of
them with coarse masks that are made anew each time. Everything follows from the seed.

Not here: the network (``crispseg.refinement``), its loss (``refiner_loss``), fitting it to a user's masks
(``refiner_fit``), trainings of segmenters (``loop``).
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.config import RefinerTraining
from crispseg.data.patchwork import CLASSES, coarse, patchwork
from crispseg.metrics import BoundaryFScore, MeanIoU
from crispseg.refinement.learned import REACH, write_weights
from crispseg.refinement.network import RefinerNetwork, near_borders
from crispseg.training.refiner_loss import refiner_loss, schedule

PAINTED, CROP = 208, 160
FRESH, POOL = 1, 512
"""New pictures a step, and how many of the last ones are kept to draw from."""
VALIDATE_EVERY = 250
"""Steps; the weights are written then, too."""
HELD_OUT = 64
"""Pictures to validate on; their seeds are no training picture's."""


def train_refiner(
    options: RefinerTraining, out: str | os.PathLike[str], *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train, write the weights to ``out`` at each validation, and return the last validation's numbers."""
    torch.manual_seed(options.seed)
    network = RefinerNetwork()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=1e-3)
    rng, pool = np.random.default_rng((options.seed, 1)), _Pool(options.seed)
    held_out = _held_out(options.seed)
    before = _scores(held_out, None)
    say(f"held out: boundary F at 1 px {before['f1']:.3f}, mIoU {before['miou']:.3f} as the masks are")
    scores, running = before, 0.0
    for at in range(1, options.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(at / options.steps)
        image, label, p = pool.batch(rng, options.batch_size)
        loss = refiner_loss(network, image, label, p)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimizer.step()
        running += float(loss.detach())
        if at % 50 == 0:
            say(f"step {at}/{options.steps}: loss {running / 50:.4f}")
            running = 0.0
        if at % VALIDATE_EVERY == 0 or at == options.steps:
            scores = _scores(held_out, network)
            say(f"step {at}: held out: boundary F at 1 px {scores['f1']:.3f}, mIoU {scores['miou']:.3f}")
            write_weights(network, out, {"steps": str(options.steps), "at": str(at), "seed": str(options.seed)})
    return {"before": before, "after": scores}


class _Pool:
    """The last pictures painted, from which batches are drawn."""

    def __init__(self, seed: int) -> None:
        self.seed, self.count = seed, 0
        self.pictures: list[tuple[Any, Any]] = []

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """image (B, 3, h, w), label (B, h, w), coarse p (B, K, h, w); new pictures are in it first."""
        for _ in range(max(FRESH, size if not self.pictures else 0)):
            self.pictures.append(patchwork((self.seed, 0, self.count), (PAINTED, PAINTED)))
            self.count += 1
        self.pictures = self.pictures[-POOL:]
        drawn = rng.integers(0, len(self.pictures), size - FRESH).tolist() + list(range(-FRESH, 0))
        return _stacked([_cropped(rng, *self.pictures[i]) for i in drawn])


def _cropped(rng: np.random.Generator, image: Any, label: Any) -> tuple[Any, Any, Any]:
    """A crop, turned and mirrored, its classes named anew, and a coarse mask of it."""
    y, x = rng.integers(0, PAINTED - CROP + 1, 2)
    turn, mirror = int(rng.integers(4)), bool(rng.integers(2))
    names = rng.permutation(CLASSES).astype(np.uint8)
    image, label = image[y : y + CROP, x : x + CROP], names[label[y : y + CROP, x : x + CROP]]
    image, label = np.rot90(image, turn), np.rot90(label, turn)
    if mirror:
        image, label = image[:, ::-1], label[:, ::-1]
    label = np.ascontiguousarray(label)
    return np.ascontiguousarray(image), label, coarse(rng, label, CLASSES)


def _stacked(samples: list[tuple[Any, Any, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    image, label, p = (torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))
    return image.permute(0, 3, 1, 2).float() / 255, label.long(), p


def _held_out(seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    rng = np.random.default_rng((seed, 2))
    samples = [_cropped(rng, *patchwork((seed, 1, i), (PAINTED, PAINTED))) for i in range(HELD_OUT)]
    return [_stacked(samples[i : i + 8]) for i in range(0, HELD_OUT, 8)]


@torch.no_grad()
def _scores(batches: list[tuple[Tensor, Tensor, Tensor]], network: RefinerNetwork | None) -> dict[str, float]:
    f, iou = BoundaryFScore(CLASSES), MeanIoU(CLASSES)
    if network is not None:
        network.eval()
    for image, label, p in batches:
        out = p if network is None else network(image, p, near_borders(p, REACH))[1]
        f.update(out.argmax(1), label)
        iou.update(out.argmax(1), label)
    if network is not None:
        network.train()
    return {"f1": float(f.compute()["boundary_f"][0]), "miou": float(iou.compute()["miou"])}
