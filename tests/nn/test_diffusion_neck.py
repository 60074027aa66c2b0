"""The unrolled solver as a neck: it is the solver, it starts as the identity, and gradients reach both maps."""

import pytest
import torch
import torch.nn.functional as F

from crispseg.diffusion import Semantic, solve
from crispseg.models import build_model
from crispseg.nn import SemanticDiffusionNeck
from crispseg.nn.diffusion import DiffusionSteps


def maps(channels=6, guide_channels=5):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, channels, 9, 7, generator=generator), torch.rand(2, guide_channels, 4, 3, generator=generator)


@pytest.mark.parametrize("steps", [1, 4, 16])
@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian"])
def test_it_is_the_explicit_solver_on_the_resized_projected_guide(steps, similarity):
    u, v = maps()
    module = DiffusionSteps(6, 5, steps=steps, similarity=similarity, scale=0.2)
    guide = F.interpolate(module.guide_projection(v), size=(9, 7), mode="bilinear", align_corners=False)
    D = Semantic(similarity, 0.2)
    expected = solve(u, D, time=0.25 * steps, step=0.25, solver="explicit", guide=guide)
    torch.testing.assert_close(u + module(u, v), expected)


@pytest.mark.parametrize("operator", ["diffusion", "diffusion-1", "diffusion-16"])
def test_a_fresh_neck_is_the_identity_and_gradients_reach_it_and_its_guide(operator):
    u, v = maps(6, 6)
    neck = SemanticDiffusionNeck([6, 6], operator=operator, identity=False)
    fresh = SemanticDiffusionNeck([6, 6], operator=operator, kernel_size=3, groups=1, norm=True)
    assert all(torch.equal(a, b) for a, b in zip(fresh([u, v]), [u, v], strict=True))
    u.requires_grad_(), v.requires_grad_()
    neck([u, v])[0].square().sum().backward()
    assert u.grad.abs().min() > 0
    assert v.grad.abs().min() > 0


@pytest.mark.parametrize("place", ["encoder", "head"])
def test_build_model_takes_it_in_both_places(place):
    model = build_model("tf_efficientnet_lite0", "semantic_fpn", 3, pretrained=False, neck="diffusion", place=place)
    assert any(isinstance(m, DiffusionSteps) and m.steps == 4 for m in model.modules())


@pytest.mark.parametrize("options", [{"steps": 0}, {"step": 0.3}, {"scale": "learned"}, {"scale": -1.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="found"):
        DiffusionSteps(4, 4, **options)
