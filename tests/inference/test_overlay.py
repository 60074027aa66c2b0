"""Overlays, pixel by pixel: the pure colour at borders between labels in every direction, a blend elsewhere."""

import pytest
import torch

from crispseg.data import ClassSet
from crispseg.inference import overlay

CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def has_another_neighbour(label, i, j):
    height, width = len(label), len(label[0])
    neighbours = ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
    return any(label[y][x] != label[i][j] for y, x in neighbours if 0 <= y < height and 0 <= x < width)


@pytest.mark.parametrize("opacity", [0.5, 0.2])
@pytest.mark.parametrize("turned", [False, True])
def test_every_pixel_is_the_colour_at_a_border_and_the_blend_elsewhere(opacity, turned):
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (3, 4))].repeat_interleave(3, 0).repeat_interleave(4, 1)
    label[4, 6] = (label[4, 6] + 1) % 3  # one pixel alone
    label = label.T if turned else label
    image = torch.randint(0, 256, (3, *label.shape), dtype=torch.uint8)
    shown = overlay(image, label, CLASSES, **({} if opacity == 0.5 else {"opacity": opacity}))
    colours = {**dict(enumerate(CLASSES.palette)), 255: (255, 255, 255)}
    rows = label.tolist()
    borders = 0
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            at_border = has_another_neighbour(rows, i, j)
            share = 1.0 if at_border else opacity
            mixed = [(1 - share) * a + share * b for a, b in zip(image[:, i, j].tolist(), colours[value])]
            assert shown[:, i, j].tolist() == pytest.approx(mixed, abs=0.51)
            borders += at_border
    assert 0 < borders < label.numel()
