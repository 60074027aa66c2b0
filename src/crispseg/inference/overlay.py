"""A picture with its classes on it, for looking at."""

import torch
from torch import Tensor

from crispseg.data import ClassSet, full_palette


def overlay(image: Tensor, label: Tensor, classes: ClassSet, *, opacity: float = 0.5) -> Tensor:
    """Blend the classes' colours over a picture; pixels at a border between two labels show the pure colour.

    image: uint8 (3, H, W); label: integers (H, W); returns uint8 (3, H, W).

    >>> from crispseg.data import default_palette
    >>> classes = ClassSet(("a", "b"), default_palette(2))
    >>> overlay(torch.zeros(3, 1, 4, dtype=torch.uint8), torch.tensor([[0, 1, 1, 1]]), classes)[0]
    tensor([[  0, 128,  64,  64]], dtype=torch.uint8)
    """
    colours = torch.tensor(full_palette(classes), dtype=torch.float32)[label.long()].permute(2, 0, 1)
    alpha = torch.where(_at_border(label), 1.0, opacity)
    return (image * (1 - alpha) + colours * alpha).round().to(torch.uint8)


def _at_border(label: Tensor) -> Tensor:
    """True where a pixel's right, left, upper or lower neighbour has another label."""
    border = torch.zeros(label.shape, dtype=torch.bool)
    below, right = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
    border[1:] |= below
    border[:-1] |= below
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border
