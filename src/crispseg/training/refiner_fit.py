"""``fit_network``: the learned refiner trained further on pictures, masks and labels of a user, on crops at borders.

Batch norm keeps the statistics that it came with, so that a few pictures suffice. Not here: files and what is held
out (``crispseg.fitting``), the loss (``refiner_loss``).
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.config import RefinerFitting
from crispseg.refinement.borders import borders
from crispseg.refinement.network import RefinerNetwork
from crispseg.training.refiner_loss import VOID, refiner_loss, schedule

CROP = 160
VALIDATE_EVERY = 50
PATIENCE = 3
"""Validations without a gain after which it stops."""
LOOKS = 8
"""Places tried for a crop in which the mask has a border."""
PRESENT = 0.01
"""A class that is nowhere in a crop as likely as this, nor true there, takes no part in it."""


class Example(NamedTuple):
    """image uint8 (3, H, W), label int64 (H, W) with void 255, p (K, H, W) probabilities."""

    image: Tensor
    label: Tensor
    p: Tensor


def fit_network(
    start: RefinerNetwork,
    examples: Sequence[Callable[[], Example]],
    quality: Callable[[RefinerNetwork], float],
    options: RefinerFitting,
    *,
    crop: tuple[int, int] = (CROP, CROP),
    say: Callable[[str], None] = print,
) -> tuple[RefinerNetwork, int]:
    """Return the best network that a training from ``start`` came by, and after how many steps: 0 is ``start`` itself.

    Parameters
    ----------
    examples
        Each reads one picture. They are read again whenever they are drawn.
    quality
        What is best, of a network in eval mode; on other pictures than ``examples``. It is asked every 50 steps, and
        the training stops once three answers in a row were no gain.
    crop
        (height, width) of the crops, multiples of 16, at most the size of any picture.
    """
    network, rng = copy.deepcopy(start).eval(), np.random.default_rng(options.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=1e-3)
    best, best_at, best_quality, waited, running = start, 0, quality(start), 0, 0.0
    say(f"before: {best_quality:.4f}")
    for at in range(1, options.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(at / options.steps)
        drawn = rng.integers(0, len(examples), options.batch_size).tolist()
        loss = refiner_loss(network, *_stacked([_cropped(rng, examples[i](), crop) for i in drawn]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        running += float(loss.detach())
        if at % VALIDATE_EVERY and at < options.steps:
            continue
        found = quality(network)
        say(f"step {at}/{options.steps}: {found:.4f}, loss {running / (at % VALIDATE_EVERY or VALIDATE_EVERY):.4f}")
        waited, running = waited + 1, 0.0
        if found > best_quality:
            best, best_at, best_quality, waited = copy.deepcopy(network), at, found, 0
        if waited == PATIENCE:
            break
    return best, best_at


def _cropped(rng: np.random.Generator, example: Example, size: tuple[int, int]) -> Example:
    """A crop, at a border of the mask if one is found, now and then mirrored, with the classes that are in it."""
    image, label, p = example
    edges = borders(p.argmax(0))
    for _ in range(LOOKS):
        rows, columns = (
            slice(start := int(rng.integers(0, length - side + 1)), start + side)
            for length, side in zip(label.shape, size, strict=True)
        )
        if bool(edges[rows, columns].any()):
            break
    image, label, p = image[:, rows, columns], label[rows, columns], p[:, rows, columns]
    if rng.random() < 0.5:
        image, label, p = image.flip(-1), label.flip(-1), p.flip(-1)
    there = p.flatten(1).amax(1) > PRESENT
    there[label[label != VOID].unique()] = True
    p = p[there]
    numbers = torch.full((VOID + 1,), VOID)
    numbers[: len(there)][there] = torch.arange(len(p))
    return Example(image, numbers[label], p / p.sum(0))


def _stacked(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """image (B, 3, h, w) in [0, 1], label (B, h, w), p (B, K, h, w): K of the crop with the most classes."""
    most = max(len(example.p) for example in examples)
    p = torch.stack([F.pad(example.p, (0, 0, 0, 0, 0, most - len(example.p))) for example in examples])
    return torch.stack([e.image for e in examples]).float() / 255, torch.stack([e.label for e in examples]), p
