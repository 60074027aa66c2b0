"""Borders of label maps and what is near them, beside the plain definition, pixel by pixel."""

import pytest
import torch

from crispseg.refinement.borders import borders, likeliest, near_borders, within


@pytest.mark.parametrize("size", [(1, 1), (1, 12), (9, 14), (40, 3)])
@pytest.mark.parametrize("radius", [1, 2, 4, 7, 24])
def test_within_is_the_maximum_norm(size, radius):
    g = torch.Generator().manual_seed(radius)
    pixels = torch.rand(2, *size, generator=g) < 0.04
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    for one, found in zip(pixels, within(pixels, radius), strict=True):
        expected = torch.zeros(size, dtype=torch.bool)
        for b, a in one.nonzero().tolist():
            expected |= torch.maximum((y - b).abs(), (x - a).abs()) <= radius
        assert torch.equal(found, expected)


def test_a_pixel_in_a_corner_grows_without_gaps():
    pixels = torch.zeros(1, 60, dtype=torch.bool)
    pixels[0, 0] = True
    assert within(pixels, 24).sum() == 25


def test_the_likeliest_class_is_the_first_of_equal_ones():
    p = torch.randint(0, 4, (5, 37, 11), generator=torch.Generator().manual_seed(0)).float()
    label, most = likeliest(p)
    assert torch.equal(most, p.amax(0))
    assert all(torch.equal(label == k, (p[k] == most) & (p[:k] < most).all(0)) for k in range(5))


def test_borders_touch_another_class():
    label = torch.zeros(1, 7, 7, dtype=torch.long)
    label[0, 3, 3] = 1
    assert borders(label)[0].nonzero().tolist() == [[2, 3], [3, 2], [3, 3], [3, 4], [4, 3]]
    p = torch.stack([1 - label[0].float(), label[0].float()])[None]
    assert torch.equal(near_borders(p, 2)[0, 0], within(borders(label), 2)[0])
