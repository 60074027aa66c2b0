"""Segments are those of scipy's labelling, class by class, with the 8 neighbours."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from crispseg.evaluation import segments


def by_scipy(code):
    out = np.zeros(code.shape, int)
    for value in np.unique(code):
        pieces, _ = ndimage.label(code == value, np.ones((3, 3)))
        out += np.where(pieces > 0, pieces + out.max(), 0)
    return out


def same_partition(a, b):
    return len(set(zip(a.flat, b.flat))) == len(set(a.flat)) == len(set(b.flat))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_equal_to_scipy(height, width, classes, seed):
    code = np.random.default_rng(seed).integers(0, classes, (height, width))
    number, count = segments(torch.from_numpy(code))
    assert same_partition(number.numpy(), by_scipy(code))
    assert sorted(set(number.flatten().tolist())) == list(range(count))


def test_a_long_snake_is_one_segment():
    code = torch.zeros(101, 101, dtype=torch.uint8)
    code[::2] = 1
    code[1::4, -1] = 1
    code[3::4, 0] = 1
    number, _ = segments(code)
    assert len(number[code == 1].unique()) == 1
