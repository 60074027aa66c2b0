"""The solvers against what is known of ∂u/∂t = div(D ∇u) with pencil and paper."""

import itertools
import math

import pytest
import torch

from crispseg.diffusion import (
    CoherenceEnhancing,
    EdgeEnhancing,
    Field,
    Semantic,
    charbonnier,
    constant,
    perona_malik,
    solve,
)

NAMES = ["constant", "perona-malik", "charbonnier", "semantic", "edge-enhancing", "coherence-enhancing"]
SCALAR = NAMES[:4]
TENSOR_STENCILS = ["lattice", "nonnegative", "rotation-invariant"]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pairs():
    """Every diffusivity by name with every solver that takes it."""
    return [(n, s) for n in NAMES for s in ("explicit", "aos", "fed") if s != "aos" or n in SCALAR]


def gaussian_bump(size, sigma, h):
    """A Gaussian in the middle of a size·h wide square, sampled at pixel centres."""
    x = (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) * h
    return torch.exp(-(x[:, None] ** 2 + x**2) / (2 * sigma**2))[None, None]


def blurred_bump(size, sigma, h, time):
    """The same after D = 1 for ``time``: variance σ² + 2t, the mass kept."""
    wide = math.sqrt(sigma**2 + 2 * time)
    return gaussian_bump(size, wide, h) * (sigma / wide) ** 2


def blur_error(size, h, step, solver="explicit", sigma=1.0, time=0.5):
    """Largest error of D = 1 on the bump of width ``sigma``; lengths in the bump's unit, so a pixel is h of them."""
    u = solve(gaussian_bump(size, sigma, h), "constant", time=time / h**2, step=step / h**2, solver=solver)
    return float((u - blurred_bump(size, sigma, h, time)).abs().max())


@pytest.mark.parametrize("solver", ["explicit", "aos", "fed"])
def test_constant_diffusion_is_the_gaussian_of_sigma_root_2t(solver):
    u, time = gaussian_bump(96, 4.0, 1.0), 18.0
    blurred = solve(u, "constant", time=time, solver=solver, step=0.05)
    error = (blurred - blurred_bump(96, 4.0, 1.0, time)).abs()[..., 16:-16, 16:-16].max()
    assert error < 2e-3


def test_the_error_in_space_is_of_second_order():
    # At τ = h²/6 the leading errors in time and in space nearly cancel, so τ is taken far below.
    errors = [blur_error(round(16 / h), h, step=0.002) for h in (1.0, 0.5, 0.25)]
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2], abs=0.35)


@pytest.mark.parametrize("solver", ["explicit", "aos"])
def test_the_error_in_time_is_of_first_order(solver):
    u, steps = gaussian_bump(48, 3.0, 1.0), (0.2, 0.1, 0.05)
    exact = solve(u, "constant", time=4.0, step=1 / 1024, solver="explicit")
    errors = [float((solve(u, "constant", time=4.0, step=s, solver=solver) - exact).abs().max()) for s in steps]
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("name, solver", pairs())
def test_the_mass_is_conserved(name, solver):
    u = noise(2, 3, 17, 22)
    after = solve(u, name, time=6.0, solver=solver, guide=noise(2, 3, 17, 22, seed=1))
    assert torch.allclose(after.sum((2, 3)), u.sum((2, 3)), rtol=1e-12)
    assert not torch.allclose(after, u, atol=1e-3)


@pytest.mark.parametrize("name, solver", pairs())
def test_constants_stay(name, solver):
    u = torch.full((1, 2, 9, 12), 0.7, dtype=torch.float64)
    assert torch.allclose(solve(u, name, time=6.0, solver=solver, guide=noise(1, 2, 9, 12)), u, rtol=1e-13)


@pytest.mark.parametrize(
    "name, solver",
    [(n, s) for n in [*SCALAR, "edge-enhancing"] for s in ("explicit", "aos") if s == "explicit" or n in SCALAR],
)
def test_no_value_leaves_the_range_of_u(name, solver):
    u = (noise(1, 1, 24, 31) > 0.5).double()
    step = 50.0 if solver == "aos" else None
    states = solve(u, name, time=100.0, step=step, solver=solver, guide=noise(1, 1, 24, 31, seed=1), history=True)
    ranges = [(float(s.u.min()), float(s.u.max())) for s in states]
    assert all(
        later[0] >= former[0] - 1e-12 and later[1] <= former[1] + 1e-12 for former, later in itertools.pairwise(ranges)
    )


@pytest.mark.parametrize("stencil", TENSOR_STENCILS)
@pytest.mark.parametrize("kind", [EdgeEnhancing, CoherenceEnhancing])
def test_every_tensor_stencil_lowers_the_energy(kind, stencil):
    states = solve(noise(1, 1, 24, 31), kind(stencil=stencil), time=8.0, solver="explicit", history=True)
    energies = [float(s.u.square().sum()) for s in states]
    assert all(later < former for former, later in itertools.pairwise(energies))


@pytest.mark.parametrize("D", [constant(), Field(0.5), perona_malik(0.3), charbonnier(0.3), Semantic("gaussian", 0.5)])
def test_aos_is_the_explicit_scheme_for_small_steps(D):
    u, guide = noise(1, 2, 20, 20), noise(1, 4, 20, 20, seed=1)
    gaps = []
    for step in (0.02, 0.01):
        explicit, aos = (solve(u, D, time=0.2, step=step, solver=s, guide=guide) for s in ("explicit", "aos"))
        gaps.append(float((explicit - aos).abs().max()))
    assert gaps[1] < 0.05 * (explicit - u).abs().max()
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("name", SCALAR)
def test_aos_is_stable_at_a_step_of_100(name):
    u = noise(1, 1, 40, 40)
    after = solve(u, name, time=1000.0, step=100.0, solver="aos", guide=noise(1, 1, 40, 40, seed=1))
    assert u.min() <= after.min() <= after.max() <= u.max()
    assert after.std() < 0.2 * u.std()


def test_edge_enhancing_keeps_a_step_that_isotropic_loses():
    columns = torch.arange(48)
    u = 0.1 * noise(1, 1, 48, 48) + (columns[:, None] + 2 * columns > 72).double()

    def jump_and_roughness(v):
        return float(v[0, 0, 8:40].diff(dim=-1).amax(dim=-1).min()), float(v[0, 0, 8:16, 4:12].std())

    _, rough = jump_and_roughness(u)
    kept, flat = jump_and_roughness(solve(u, "edge-enhancing", time=25.0))
    lost, _ = jump_and_roughness(solve(u, "constant", time=25.0))
    assert kept > 0.8
    assert lost < 0.2
    assert flat < 0.1 * rough


def test_coherence_enhancing_closes_a_gap_in_a_line():
    u = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    u[..., 19:22, :] = 1
    u[..., 19:22, 18:23] = 0
    after = solve(u, CoherenceEnhancing(rho=6.0), time=60.0)
    assert after[0, 0, 20, 20] > 0.5
    assert after[0, 0, 14, 20] < 0.15


def test_perona_malik_steepens_an_edge_above_its_scale_and_blurs_one_below():
    ramp = torch.sigmoid((torch.arange(60.0, dtype=torch.float64) - 30) / 2).expand(1, 1, 8, 60)
    slope = ramp.diff(dim=-1).max()
    steep = solve(ramp, perona_malik(float(slope) / 3), time=20.0).diff(dim=-1).max()
    blurred = solve(ramp, perona_malik(float(slope) * 3), time=20.0).diff(dim=-1).max()
    assert steep > 1.2 * slope
    assert blurred < 0.8 * slope


def test_semantic_diffusion_smooths_the_texture_and_keeps_the_border_of_the_guide():
    texture = 0.4 * noise(1, 1, 32, 32)
    border = (torch.arange(32) >= 16).double().expand(1, 1, 32, 32)
    u = texture + 0.1 * border
    after = solve(u, Semantic("gaussian", 0.1), time=30.0, guide=border)
    halves = after[..., 2:-2, 2:14], after[..., 2:-2, 18:-2]
    assert all(half.std() < 0.1 * texture.std() for half in halves)
    assert after[..., 16:].mean() - after[..., :16].mean() == pytest.approx(
        float(u[..., 16:].mean() - u[..., :16].mean()), abs=1e-6
    )


def test_a_field_of_zero_stops_the_flow_where_it_is_zero():
    u = noise(1, 2, 16, 16)
    D = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    D[..., 6:] = 0
    after = solve(u, Field(D), time=5.0)
    assert torch.equal(after[..., 7:], u[..., 7:])
    assert not torch.allclose(after[..., :6], u[..., :6], atol=1e-2)
