"""Similarity is what its formula says, in [0, 1], symmetric, and 1 for the same vector."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from crispseg.similarity import NAMES, PER_CHANNEL, SIMILARITIES, charbonnier, cosine, gaussian, one


def pair(seed: int, channels: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(spread * torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float64) for _ in "pq")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), channels=st.integers(1, 5), spread=st.floats(1e-3, 1e2), scale=st.floats(1e-2, 1e2))
@pytest.mark.parametrize("name", NAMES)
def test_bounds_symmetry_and_identity(name, seed, channels, spread, scale):
    S = SIMILARITIES[name]
    v_p, v_q = pair(seed, channels, spread)
    s = S(v_p, v_q, scale)
    assert s.shape == (2, channels if name in PER_CHANNEL else 1, 3, 4)
    assert (s >= 0).all()
    assert (s <= 1 + 1e-12).all()
    torch.testing.assert_close(s, S(v_q, v_p, scale))
    torch.testing.assert_close(S(v_p, v_p, scale), torch.ones_like(s))


def test_the_formulas_at_one_pixel():
    v_p, v_q = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([5.0, 0.0]).view(1, 2, 1, 1)
    scale = torch.tensor([2.0, 8.0])  # the steps, 2 and −4, are 1 and −1/2 of it
    expected = [1 / math.sqrt(2), 1 / math.sqrt(1.25)]
    assert charbonnier(v_p, v_q, scale).flatten().tolist() == pytest.approx(expected)
    assert gaussian(v_p, v_q, scale).item() == pytest.approx(math.exp(-(1 + 0.25) / 4))
    assert cosine(v_p, v_q).item() == pytest.approx(15 / 25)
    assert one(v_p, v_q).item() == 1


def test_cosine_of_opposite_and_of_zero_vectors_is_zero_with_no_gradient():
    """Opposite; zero both; zero beside one that is not, on either side."""
    pairs = [([1.0, -2.0], [-1.0, 2.0]), ([0.0, 0.0], [0.0, 0.0]), ([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0.0, 0.0])]
    v_p, v_q = (torch.tensor(x).view(4, 2, 1, 1).requires_grad_() for x in zip(*pairs))
    s = cosine(v_p, v_q)
    s.sum().backward()
    assert torch.equal(s, torch.zeros(4, 1, 1, 1))
    assert torch.equal(v_p.grad, torch.zeros(4, 2, 1, 1))
    assert torch.equal(v_q.grad, torch.zeros(4, 2, 1, 1))
