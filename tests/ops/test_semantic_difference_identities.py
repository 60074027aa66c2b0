"""Identities of the operator that hold to rounding, for every implementation that runs here."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native
from crispseg.similarity import NAMES

IMPLEMENTATIONS = ["reference", "tiled", *(["native"] if native.library() else [])]
CASES = {
    "seed": st.integers(0, 999),
    "size": st.tuples(st.integers(1, 9), st.integers(1, 9)),
    "k": st.sampled_from([3, 5]),
    "dilation": st.integers(1, 3),
    "contrast": st.booleans(),
}


def draw(seed: int, size: tuple[int, int], k: int, impl: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if impl == "native" else torch.float64
    shapes = (2, 4, *size), (2, 4, *size), (3, 4, k, k)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    rounding = 1e-4 if a.dtype == torch.float32 else 1e-11
    torch.testing.assert_close(a, b, rtol=rounding, atol=10 * rounding)


def names(impl: str) -> list[str]:
    return ["charbonnier"] if impl == "native" else list(NAMES)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=15, deadline=None)
@given(**CASES, shift=st.floats(-8, 8))
def test_constants_and_the_middle_tap_play_no_part(impl, seed, size, k, dilation, contrast, shift):
    u, v, weight = draw(seed, size, k, impl)
    other_middle = weight.clone()
    other_middle[..., k // 2, k // 2] += shift
    for name in names(impl):
        form = {"similarity": name, "contrast": contrast, "dilation": dilation, "impl": impl}
        y = semantic_difference(u, v, weight, **form)
        close(semantic_difference(u + shift, v, weight, **form), y)
        assert torch.equal(semantic_difference(u, v, other_middle, **form), y)
        flat = semantic_difference(torch.full_like(u, shift), v, weight, **form)
        close(flat, torch.zeros_like(flat))
        assert name == "one" or not flat.any()


@pytest.mark.parametrize("impl", ["reference", "tiled"])
@settings(max_examples=15, deadline=None)
@given(**CASES)
def test_similarity_one_is_central_difference_convolution(impl, seed, size, k, dilation, contrast):
    u, v, weight = draw(seed, size, k, impl)
    y = semantic_difference(u, v, weight, similarity="one", contrast=contrast, dilation=dilation, impl=impl)
    padded = F.pad(u, [k // 2 * dilation] * 4, mode="replicate")
    central = F.conv2d(padded, weight, dilation=dilation) - F.conv2d(u, weight.sum((2, 3), keepdim=True))
    close(y, torch.zeros_like(y) if contrast else central)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=15, deadline=None)
@given(**CASES)
def test_the_two_forms_add_up_to_central_difference(impl, seed, size, k, dilation, contrast):
    u, v, weight = draw(seed, size, k, impl)
    for name in names(impl):
        form = {"similarity": name, "dilation": dilation, "impl": impl}
        inside = semantic_difference(u, v, weight, **form)
        across = semantic_difference(u, v, weight, **form, contrast=True)
        close(inside + across, semantic_difference(u, v, weight, similarity="one", dilation=dilation, impl="reference"))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_one_explicit_step_of_semantic_diffusion(impl):
    """W = τ · identity on the four neighbours: u + y is u + τ Σ_q g(v_q − v_p)(u_q − u_p), written out by hand here."""
    u, v, _ = draw(0, (6, 7), 3, impl)
    τ = 0.2
    weight = torch.zeros(4, 4, 3, 3, dtype=u.dtype)
    for y, x in ((0, 1), (1, 0), (1, 2), (2, 1)):
        weight[:, :, y, x] = τ * torch.eye(4, dtype=u.dtype)
    step = torch.zeros_like(u)
    for dim in (2, 3):
        du, dv = u.diff(dim=dim), v.diff(dim=dim)
        flux = du / (1 + dv**2).sqrt()
        n = u.shape[dim]
        step.narrow(dim, 0, n - 1).add_(flux)
        step.narrow(dim, 1, n - 1).sub_(flux)
    close(semantic_difference(u, v, weight, impl=impl), τ * step)
