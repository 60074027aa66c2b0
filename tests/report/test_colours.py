"""Maps as pictures: every colour exact on tiny cases."""

import numpy as np
import pytest
import torch

from crispseg.report import BOUNDARY_ERROR, INTERIOR_ERROR, colourise, error_map, heat, picture
from crispseg.report.colours import VOID


def test_picture_of_floats_and_bytes():
    floats = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[1.0, -1.0]]])
    assert picture(floats).tolist() == [[[0, 128, 255], [255, 255, 0]]]
    levels = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    assert np.array_equal(picture(levels), levels.permute(1, 2, 0).numpy())


def test_colourise_paints_classes_and_hatches_void():
    label = torch.full((6, 6), 255)
    label[0, :2] = torch.tensor([0, 1])
    out = colourise(label, [(10, 20, 30), (40, 50, 60)])
    assert out[0, 0].tolist() == [10, 20, 30]
    assert out[0, 1].tolist() == [40, 50, 60]
    greys = {tuple(pixel) for pixel in out.reshape(-1, 3)[2:].tolist()}
    assert greys == set(VOID)


@pytest.mark.parametrize("near", [1, 2])
def test_error_map_tells_boundary_from_interior_and_void_from_both(near):
    truth = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 255, 1]])
    pred = torch.tensor([[1, 0, 0, 1, 0, 0, 1, 1, 0, 0]])
    image = torch.full((3, 1, 10), 0.5)
    out = error_map(image, pred, truth, num_classes=2, near=near)[0]
    right = [round(0.42 * 128)] * 3
    assert out[0].tolist() == list(INTERIOR_ERROR)
    assert out[1].tolist() == right
    assert out[3].tolist() == list(INTERIOR_ERROR if near == 1 else BOUNDARY_ERROR)
    assert out[4].tolist() == right
    assert out[5].tolist() == list(BOUNDARY_ERROR)
    assert tuple(out[8].tolist()) in VOID
    assert out[9].tolist() == list(INTERIOR_ERROR)  # the edge of void is no boundary


def test_heat_is_black_at_zero_and_the_same_for_any_gain():
    response = torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0))
    response[:, :10] = 0
    assert np.array_equal(heat(response), heat(response * 8))
    assert heat(response)[:10].max() <= heat(torch.zeros(5, 1, 1)).max()
    assert heat(response)[10:].max() > 200
