"""The same picture as SimpleITK and medpy where the scheme is the same. Skipped where they are not installed.

Compared with SimpleITK 2.5.7 and MedPy 0.5.2.
"""

import numpy as np
import pytest
import torch

from crispseg.diffusion import perona_malik, solve
from crispseg.diffusion.gradient import squared_central_norm

STEP, ITERATIONS = 0.125, 10


@pytest.fixture
def u():
    """A disc on a slope under noise, float32."""
    y, x = torch.meshgrid(torch.arange(61.0), torch.arange(74.0), indexing="ij")
    noise = torch.rand(61, 74, generator=torch.Generator().manual_seed(0))
    return (0.5 * ((x - 40) ** 2 + (y - 25) ** 2 < 300) + 0.003 * x + 0.3 * noise)[None, None]


def test_gradient_anisotropic_diffusion_of_simpleitk(u):
    simple_itk = pytest.importorskip("SimpleITK")
    image = simple_itk.GetImageFromArray(u[0, 0].numpy())
    theirs = simple_itk.GetArrayFromImage(simple_itk.GradientAnisotropicDiffusion(image, STEP, 1.0, 1, ITERATIONS))
    mine = u
    for _ in range(ITERATIONS):
        scale = (2 * squared_central_norm(mine).mean()).sqrt()
        mine = solve(mine, perona_malik(scale), time=STEP, step=STEP, solver="explicit")
    np.testing.assert_allclose(mine[0, 0], theirs, rtol=0, atol=2e-6)
    assert float((mine - u).abs().max()) > 0.1


@pytest.mark.parametrize("option, form", [(1, "exponential"), (2, "rational")])
def test_anisotropic_diffusion_of_medpy(u, option, form):
    smoothing = pytest.importorskip("medpy.filter.smoothing")
    theirs = smoothing.anisotropic_diffusion(u[0, 0].numpy(), ITERATIONS, 0.2, STEP, option=option)
    D = perona_malik(0.2, form=form, gradient="difference")
    mine = solve(u, D, time=STEP * ITERATIONS, step=STEP, solver="explicit")
    np.testing.assert_allclose(mine[0, 0], theirs, rtol=0, atol=2e-6)
    assert float((mine - u).abs().max()) > 0.1
