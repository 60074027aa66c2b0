"""What ``solve`` promises beside the mathematics: steps, bounds, errors, history, stopping, gradients, strips."""

import io
import math
import re
import subprocess
import sys

import pytest
import torch
from torch.autograd import gradcheck

from crispseg.diffusion import (
    CoherenceEnhancing,
    EdgeEnhancing,
    Field,
    Semantic,
    charbonnier,
    constant,
    edge_scale,
    fused,
    perona_malik,
    solve,
    strips,
)
from crispseg.diffusion.tridiagonal import solve_chain
from crispseg.ops import semantic_difference


def named(value):
    """An id that is the same in every process: functions without their address."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", repr(value))


U = torch.rand(1, 1, 12, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian", "cosine", "one"])
def test_one_explicit_step_is_the_operator_with_w_the_identity_on_the_4_neighbours(similarity, contrast):
    u, v, tau = random(2, 3, 33, 47, dtype=torch.float32), random(2, 3, 33, 47, seed=1, dtype=torch.float32), 0.25
    weight = torch.zeros(3, 3, 3, 3)
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        weight[:, :, dy, dx] = tau * torch.eye(3)
    y = semantic_difference(u, v, weight, similarity=similarity, scale=0.3, contrast=contrast, impl="reference")
    step = solve(u, Semantic(similarity, 0.3, contrast), time=tau, step=tau, solver="explicit", guide=v)
    assert torch.equal(u + y, step)
    fastest = semantic_difference(u, v, weight, similarity=similarity, scale=0.3, contrast=contrast)
    assert torch.allclose(u + fastest, step, rtol=0, atol=4 * torch.finfo(u.dtype).eps)


@pytest.mark.parametrize("tau", [0.1, 0.2])
def test_the_one_step_identity_holds_to_rounding_for_steps_that_are_no_power_of_two(tau):
    u, v = random(1, 2, 11, 9), random(1, 2, 11, 9, seed=1)
    weight = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        weight[:, :, dy, dx] = tau * torch.eye(2, dtype=torch.float64)
    step = solve(u, Semantic(), time=tau, step=tau, solver="explicit", guide=v)
    assert torch.allclose(u + semantic_difference(u, v, weight), step, rtol=0, atol=2 * torch.finfo(u.dtype).eps)


SCALAR = [
    constant(0.7),
    Field(random(1, 1, 5, 4, seed=5)),
    perona_malik(0.4),
    perona_malik(0.4, form="rational", gradient="difference", sigma=0.5),
    charbonnier(0.4),
    Semantic("gaussian", 0.5),
]
TENSOR = [
    EdgeEnhancing(scale=0.2),
    EdgeEnhancing(scale=0.2, stencil="nonnegative"),
    CoherenceEnhancing(scale=0.2, rho=1.0, stencil="rotation-invariant"),
]


@pytest.mark.parametrize(
    "D, solver",
    [(D, solver) for D in SCALAR for solver in ("explicit", "aos", "fed")]
    + [(D, solver) for D in TENSOR for solver in ("explicit", "fed")],
    ids=named,
)
def test_gradients_are_right(D, solver):
    u = random(1, 2, 5, 4).requires_grad_()
    guide = random(1, 3, 5, 4, seed=1).requires_grad_(isinstance(D, Semantic))
    step = 0.15 if solver == "explicit" else 0.8

    def run(u, guide):
        return solve(u, D, time=2 * step, step=step, solver=solver, guide=guide)

    assert gradcheck(run, (u, guide), atol=1e-6)


def test_the_gradient_reaches_a_field_and_a_scale():
    u, D, scale = random(1, 1, 5, 6), random(1, 1, 5, 6, seed=1).requires_grad_(), torch.tensor(0.4).double()
    assert gradcheck(lambda D: solve(u, Field(D), time=2.0, solver="aos"), (D,))
    assert gradcheck(lambda s: solve(u, charbonnier(s), time=1.0), (scale.requires_grad_(),))


def test_the_chain_solver_solves_its_system_and_has_second_derivatives():
    w, d = 3 * random(1, 1, 2, 6), random(1, 2, 2, 7, seed=1)
    dense = torch.eye(7, dtype=torch.float64).repeat(2, 1, 1)
    for i in range(6):
        for row in range(2):
            dense[row, i : i + 2, i : i + 2] += w[0, 0, row, i] * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    expected = torch.linalg.solve(dense, d[0].movedim(0, -1)).movedim(-1, 0)
    assert torch.allclose(solve_chain(w, d, -1)[0], expected, atol=1e-13)
    turned = solve_chain(w.transpose(-1, -2), d.transpose(-1, -2), -2).transpose(-1, -2)
    assert torch.equal(turned, solve_chain(w, d, -1))
    arguments = (w.requires_grad_(), d.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda w, d: solve_chain(w, d, -1), arguments)


@pytest.mark.parametrize("name", ["constant", "perona-malik", "charbonnier", "semantic"])
def test_an_explicit_step_outside_the_bound_is_refused_with_the_bound(name):
    with pytest.raises(ValueError, match=r"step 0\.26 is outside the bound 0\.25"):
        solve(U, name, time=1.0, step=0.26, solver="explicit", guide=U)


def test_the_bound_follows_a_field():
    with pytest.raises(ValueError, match=r"bound 0\.125"):
        solve(U, constant(2.0), time=1.0, step=0.2, solver="explicit")
    D = torch.full((1, 1, 12, 14), 0.5, dtype=torch.float64)
    assert torch.isfinite(solve(U, Field(D), time=50.0, step=0.5, solver="explicit")).all()


@pytest.mark.parametrize("kind", [EdgeEnhancing, CoherenceEnhancing])
def test_a_tensor_step_outside_the_bound_is_refused(kind):
    stripes = torch.sin(torch.arange(24.0)).expand(1, 1, 24, 24)
    with pytest.raises(ValueError, match="is outside the bound"):
        solve(stripes, kind(scale=0.1), time=10.0, step=2.5, solver="explicit")


def test_an_allowed_unstable_run_blows_up_and_the_iteration_is_named():
    grown = solve(U, "constant", time=10.0, step=0.5, solver="explicit", allow_unstable=True)
    assert grown.abs().max() > 1e3
    with pytest.raises(FloatingPointError, match=r"not finite after iteration \d+ \(t = "):
        solve(U.float(), "constant", time=1000.0, step=0.5, solver="explicit", allow_unstable=True)


@pytest.mark.parametrize("solver", ["explicit", "aos", "fed"])
def test_the_steps_add_up_to_the_time(solver):
    stages = solve(U, "charbonnier", time=1.0, step=0.15, solver=solver, history=True)
    assert [s.time for s in stages] == pytest.approx([k / 7 for k in range(8)])
    assert stages[-1].time == 1.0
    assert torch.equal(stages[0].u, U)
    assert torch.equal(stages[-1].u, solve(U, "charbonnier", time=1.0, step=0.15, solver=solver))


def test_no_time_is_no_change():
    assert torch.equal(solve(U, "perona-malik", time=0.0), U)


def test_a_run_stops_when_told_and_when_steady():
    stages = solve(U, "constant", time=10.0, step=1.0, history=True, stop=lambda time, u: time > 2.5)
    assert stages[-1].time == pytest.approx(3.0)
    steady = solve(U, "constant", time=1e4, step=5.0, history=True, stop=1e-6)
    assert steady[-1].time < 1e3
    assert steady[-1].u.std() < 1e-3


@pytest.mark.parametrize(
    "D", ["perona-malik", "charbonnier", "edge-enhancing", "coherence-enhancing", Semantic(scale=None)]
)
def test_one_image_of_a_batch_does_not_look_at_the_others(D):
    u, guide = random(2, 1, 20, 22), random(2, 1, 20, 22, seed=1)
    u[1] *= 10
    both = solve(u, D, time=2.0, step=0.2, solver="explicit", guide=guide)
    alone = solve(u[1:], D, time=2.0, step=0.2, solver="explicit", guide=guide[1:])
    assert torch.allclose(both[1:], alone, rtol=1e-12)


@pytest.mark.parametrize(
    "D", [constant(), perona_malik(0.2), perona_malik(0.2, gradient="difference"), Semantic()], ids=named
)
@pytest.mark.parametrize("solver", ["explicit", "fed"])
def test_strips_change_nothing(D, solver, monkeypatch):
    u, guide = random(2, 2, 61, 43, dtype=torch.float32), random(2, 2, 61, 43, seed=1, dtype=torch.float32)
    step = 0.25 if solver == "explicit" else 1.0
    whole = solve(u, D, time=4 * step, step=step, solver=solver, guide=guide)
    monkeypatch.setattr(strips, "STRIP_ELEMENTS", 700)
    assert strips.pays(u)
    assert torch.equal(solve(u, D, time=4 * step, step=step, solver=solver, guide=guide), whole)


@pytest.mark.parametrize("shape", [(2, 3, 17, 19), (1, 1, 1, 9), (1, 2, 9, 1), (1, 1, 1, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize(
    "D",
    [
        perona_malik(0.2),
        perona_malik(),
        perona_malik(0.2, gradient="difference"),
        perona_malik(0.2, form="rational"),
        charbonnier(0.2),
    ],
    ids=named,
)
def test_the_fused_step_is_the_step_that_records_gradients(D, shape):
    u = random(*shape)
    recorded = solve(u.clone().requires_grad_(), D, time=1.0, step=0.2, solver="explicit")
    assert fused.fuses(D.prepared(u, None), u)
    assert torch.allclose(solve(u, D, time=1.0, step=0.2, solver="explicit"), recorded.detach(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 1, 9), (2, 1, 9, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("name", ["constant", "perona-malik", "semantic", "edge-enhancing", "coherence-enhancing"])
def test_maps_of_one_row_or_one_pixel_work(shape, name):
    u = random(*shape)
    after = solve(u, name, time=3.0, guide=random(*shape, seed=1))
    assert torch.allclose(after.mean((2, 3)), u.mean((2, 3)), rtol=1e-12)
    if u[0, 0].numel() == 1:
        assert torch.allclose(after, u, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("solver", ["explicit", "aos", "fed"])
def test_the_precision_of_u_is_kept(dtype, solver):
    u = U.to(dtype)
    after = solve(u, "perona-malik", time=2.0, solver=solver)
    assert after.dtype == dtype
    exact = solve(U, "perona-malik", time=2.0, solver=solver)
    assert torch.allclose(after.double(), exact, atol=20 * torch.finfo(dtype).eps)


def test_a_flat_image_has_a_positive_edge_scale():
    assert (edge_scale(torch.ones(2, 3, 5, 5)) > 0).all()


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "did you mean 'perona-malik'", lambda: solve(U, "perona-mallik", time=1.0)),
        (ValueError, "no solver 'implicit'", lambda: solve(U, "constant", time=1.0, solver="implicit")),
        (TypeError, "a name or an object", lambda: solve(U, 1.0, time=1.0)),
        (ValueError, "needs a guide", lambda: solve(U, "semantic", time=1.0)),
        (ValueError, "on the grid of u", lambda: solve(U, "semantic", time=1.0, guide=U[..., :5])),
        (
            ValueError,
            "the guide needs 1 or 2",
            lambda: solve(U.repeat(1, 2, 1, 1), "semantic", time=1.0, guide=U.repeat(1, 3, 1, 1)),
        ),
        (ValueError, "scalar diffusivity", lambda: solve(U, "edge-enhancing", time=1.0, solver="aos")),
        (ValueError, "time must be finite", lambda: solve(U, "constant", time=math.inf)),
        (ValueError, "step must be finite and positive", lambda: solve(U, "constant", time=1.0, step=0.0)),
        (ValueError, r"must be \(B, C, H, W\)", lambda: solve(U[0], "constant", time=1.0)),
        (TypeError, "floating point", lambda: solve(U.int(), "constant", time=1.0)),
        (ValueError, "u holds values that are not finite", lambda: solve(U / 0, "constant", time=1.0)),
        (ValueError, "scale must be positive", lambda: perona_malik(0.0)),
        (ValueError, "no form 'gauss'", lambda: perona_malik(form="gauss")),
        (ValueError, "at least 0", lambda: solve(U, constant(-1.0), time=1.0)),
        (ValueError, "must broadcast", lambda: solve(U, Field(U[..., :3]), time=1.0)),
        (ValueError, "no stencil 'latice'; did you mean", lambda: EdgeEnhancing(stencil="latice")),
        (ValueError, "alpha must lie", lambda: CoherenceEnhancing(alpha=0.0)),
        (ValueError, "no similarity", lambda: Semantic("gausian")),
    ],
)
def test_mistakes_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_importing_diffusion_loads_neither_rich_nor_matplotlib():
    code = "import sys, crispseg.diffusion.solve; sys.exit(str({'rich', 'matplotlib'} & set(sys.modules) or ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self):
        return True


def test_progress_is_drawn_on_a_terminal_after_a_while_and_nowhere_else(monkeypatch):
    from crispseg.diffusion import progress

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", -1.0)
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        solve(U, "constant", time=4.0)
        assert ("diffusing" in stream.getvalue()) == drawn
