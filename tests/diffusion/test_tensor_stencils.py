"""The three stencils of div(D ∇u): symmetric, consistent, and each with the property that it is there for."""

import math

import pytest
import torch

from crispseg.diffusion import structure_tensor
from crispseg.diffusion.gradient import scharr, scharr_adjoint
from crispseg.diffusion.schemes import fed_steps
from crispseg.diffusion.tensor_stencils import STENCILS, TensorField, lattice, nonnegative


def tensor(angle, condition, shape=(1, 1, 15, 16)):
    """Eigenvalue 1 along ``angle``, 1/condition across it."""
    angle = torch.as_tensor(angle, dtype=torch.float64).expand(shape)
    c, s, low = angle.cos(), angle.sin(), 1 / condition
    return TensorField(c**2 + low * s**2, (1 - low) * c * s, s**2 + low * c**2)


def matrix(L, height, width):
    """L as a dense matrix, column by column."""
    eye = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return torch.cat([L(e[None]).flatten()[:, None] for e in eye], dim=1)


def random_tensor(condition, height=9, width=10):
    angle = math.pi * torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return tensor(angle, condition, (1, 1, height, width))


@pytest.mark.parametrize("condition", [2, 50, 1000])
@pytest.mark.parametrize("name", STENCILS)
def test_the_operator_is_symmetric_and_negative_and_its_bound_is_one(name, condition):
    L = STENCILS[name](random_tensor(condition))
    A = matrix(L, 9, 10)
    eigenvalues = torch.linalg.eigvalsh(A)
    assert torch.allclose(A, A.T, atol=1e-14)
    assert A.sum(1).abs().max() < 1e-13
    if name != "nonnegative":
        assert eigenvalues.max() < 1e-13
    assert L.bound * -eigenvalues.min() <= 2 + 1e-9


@pytest.mark.parametrize("condition", [2, 5, 50, 1000])
def test_the_lattice_weights_are_never_negative(condition):
    A = matrix(lattice(random_tensor(condition)), 9, 10)
    assert (A - A.diag().diag()).min() >= 0


def test_the_3_by_3_stencil_is_nonnegative_up_to_its_condition_and_not_past_it():
    limit = 3 + 2 * math.sqrt(2)
    angles = torch.linspace(0, math.pi, 720, dtype=torch.float64)
    least = [
        min(float(w.min()) for w in nonnegative(tensor(angles, limit * f, (1, 1, 4, 720))).weights)
        for f in (0.999, 1.1)
    ]
    assert least[0] >= 0 > least[1]


def test_the_lattice_is_the_3_by_3_stencil_where_that_one_suffices():
    D = random_tensor(5.0)
    assert torch.allclose(matrix(lattice(D), 9, 10), matrix(nonnegative(D), 9, 10), atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.2])
@pytest.mark.parametrize("name", STENCILS)
def test_quadratics_are_differentiated_exactly(name, angle):
    D = tensor(angle, 8.0, (1, 1, 25, 26))
    y, x = torch.meshgrid(torch.arange(25.0).double(), torch.arange(26.0).double(), indexing="ij")
    u = (0.5 * x**2 - 1.5 * x * y + 2 * y**2 + x - y)[None, None]
    expected = D.a * 1.0 + 2 * D.b * -1.5 + D.c * 4.0
    inner = (..., slice(6, -6), slice(6, -6))
    assert torch.allclose(STENCILS[name](D)(u)[inner], expected[inner], atol=1e-10)


def test_rings_are_kept_equally_in_every_direction_by_the_rotation_invariant_stencil():
    axis = torch.arange(101, dtype=torch.float64) - 50
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r, angle = torch.hypot(x, y), torch.atan2(y, x)
    u = torch.cos(2 * math.pi * r / 6)[None, None]
    D = tensor(angle[None, None] + math.pi / 2, 1000.0, u.shape)

    def kept(name):
        L, after = STENCILS[name](D), u
        for step in fed_steps(5.0, L.bound):
            after = after + step * L(after)
        ring = (r > 15) & (r < 42)
        sectors = [ring & ((angle / math.pi * 8).floor() == k) for k in range(-8, 8)]
        return [float((after * u)[0, 0][s].sum() / u[0, 0][s].square().sum()) for s in sectors]

    amplitudes = {name: kept(name) for name in STENCILS}
    assert min(amplitudes["rotation-invariant"]) > 0.985
    spread = {name: max(a) - min(a) for name, a in amplitudes.items()}
    assert spread["rotation-invariant"] < 0.3 * spread["lattice"]
    assert spread["rotation-invariant"] < 0.3 * spread["nonnegative"]


def test_the_scharr_adjoint_is_the_transpose():
    g = torch.Generator().manual_seed(0)
    u, jx, jy = torch.rand(3, 2, 3, 7, 8, generator=g, dtype=torch.float64)
    x, y = scharr(u)
    assert float((x * jx + y * jy).sum()) == pytest.approx(float((u * scharr_adjoint(jx, jy)).sum()), abs=1e-12)


def test_the_structure_tensor_of_a_plane_is_its_gradient():
    rows, columns = torch.arange(40.0).double()[:, None], torch.arange(40.0).double()
    J = structure_tensor((2 * columns + 3 * rows)[None, None], sigma=1.0, rho=2.0)
    middle = [float(part[0, 0, 20, 20]) for part in J]
    assert middle == pytest.approx([4, 6, 9])


@pytest.mark.parametrize("length", [0.1, 1.0, 7.3, 400.0])
def test_a_fed_cycle_has_its_length_and_is_stable_as_a_whole(length):
    steps = fed_steps(length, 0.25)
    assert sum(steps) == pytest.approx(length)
    z = torch.linspace(0, 8, 4001, dtype=torch.float64)
    growth = torch.stack([1 - step * z for step in steps]).cumprod(0)
    assert growth[-1].abs().max() <= 1 + 1e-9
    assert growth.abs().max() < 1e3
