"""The stencil against its definition: clamped coordinates, and adjoints that are transposes."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from crispseg import stencil

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clamped(x: Tensor, rows: range, columns: range) -> Tensor:
    """x at every (row, column), coordinates clamped to the map: the border rule as it is stated."""
    height, width = x.shape[-2:]
    y = torch.tensor([min(max(i, 0), height - 1) for i in rows])
    return x[..., y, :][..., torch.tensor([min(max(i, 0), width - 1) for i in columns])]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_half_offsets_and_their_negatives_are_all_neighbours(kernel_size, dilation):
    taps = stencil.offsets(kernel_size, dilation)
    half = stencil.half_offsets(kernel_size, dilation)
    assert taps[kernel_size**2 // 2] == (0, 0)
    assert {*half, *((-y, -x) for y, x in half), (0, 0)} == set(taps)
    assert len(taps) == 2 * len(half) + 1


@settings(max_examples=40, deadline=None)
@given(size=SIZES, offset=st.tuples(st.integers(-4, 4), st.integers(-4, 4)))
def test_shifted_clamps_coordinates(size, offset):
    x = random(2, *size)
    rows, columns = (range(step, step + n) for step, n in zip(offset, size))
    assert torch.equal(stencil.shifted(x, offset), clamped(x, rows, columns))


@settings(max_examples=40, deadline=None)
@given(size=SIZES, radius=st.integers(0, 4))
def test_pad_adjoint_is_the_transpose_of_pad(size, radius):
    x, g = random(2, *size), random(2, size[0] + 2 * radius, size[1] + 2 * radius, seed=1)
    padded = stencil.pad(x, radius)
    assert torch.equal(padded, clamped(x, range(-radius, size[0] + radius), range(-radius, size[1] + radius)))
    torch.testing.assert_close((padded * g).sum(), (x * stencil.pad_adjoint(g, radius)).sum())


@settings(max_examples=60, deadline=None)
@given(size=SIZES, radius=st.integers(0, 4), data=st.data())
def test_a_band_shows_its_rows_and_folds_back(size, radius, data):
    height, width = size
    top = data.draw(st.integers(0, height - 1))
    rows = data.draw(st.integers(1, height - top))
    x = random(2, *size)
    band = torch.full((2, rows + 2 * radius, width + 2 * radius), torch.nan, dtype=torch.float64)
    stencil.load_band(band, x, top, radius)
    assert torch.equal(band, clamped(x, range(top - radius, top + rows + radius), range(-radius, width + radius)))

    g, folded = random(*band.shape, seed=1), torch.zeros_like(x)
    inner = (band * g).sum()
    stencil.fold_band(g, folded, top, radius)
    torch.testing.assert_close(inner, (x * folded).sum())
