"""Crops, frames and sheets."""

import numpy as np
import pytest
import torch

from crispseg.report import Box, crop, framed, sheet, worst_box


def test_worst_box_finds_the_heaviest_window():
    weight = torch.zeros(40, 60)
    weight[5, 5] = 3
    weight[30:33, 50:53] = 1
    box = worst_box(weight, 10, 10)
    assert (box.height, box.width) == (10, 10)
    assert box.top <= 30
    assert box.top + 10 >= 33
    assert box.left <= 50
    assert box.left + 10 >= 53
    assert worst_box(weight, 100, 10) == Box(0, worst_box(weight, 40, 10).left, 40, 10)


@pytest.mark.parametrize("seed", range(5))
def test_worst_box_is_the_heaviest_of_all_windows(seed):
    weight = torch.rand(9, 13, generator=torch.Generator().manual_seed(seed))
    box = worst_box(weight, 4, 6)
    sums = {(top, left): weight[top : top + 4, left : left + 6].sum() for top in range(6) for left in range(8)}
    assert (box.top, box.left) == max(sums, key=sums.get)


def test_crop_and_frame():
    page = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    box = Box(3, 4, 5, 6)
    assert np.array_equal(crop(page, box), page[3:8, 4:10])
    out = framed(page, box, (255, 0, 0))
    assert (crop(out, box)[0] == (255, 0, 0)).all()
    assert (crop(out, box)[-1] == (255, 0, 0)).all()
    assert np.array_equal(out[4:7, 5:9], page[4:7, 5:9])
    assert not np.array_equal(out, page)
    assert np.array_equal(page, np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8))


def test_sheet_enlarges_each_picture_to_the_width_of_its_column():
    red, blue, green = (np.zeros((4, width, 3), np.uint8) for width in (5, 7, 1))
    red[..., 0], blue[..., 2], green[..., 1] = 200, 200, 200
    out = sheet([[red, blue], [blue[:2, :5], green[:1]]], ["a", "b"], scale=3, gap=2, font_size=10)
    head = 17
    assert out.shape == (head + 12 + 2 + 21, 15 + 2 + 21, 3)
    assert (out[head : head + 12, :15] == (200, 0, 0)).all()
    assert (out[head : head + 12, 17:] == (0, 0, 200)).all()
    assert (out[head + 14 : head + 20, :15] == (0, 0, 200)).all()
    assert (out[head + 14 :, 17:] == (0, 200, 0)).all()
    assert (out[head:, 15:17] == 255).all()
    assert (out[:head] < 128).any()
    with pytest.raises(ValueError, match=r"expected 2 pictures in each row, found \[1\]"):
        sheet([[red]], ["a", "b"])
