"""The rivals are what they are called, and are not slowed down by copies that their formulas do not need."""

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks import rivals
from crispseg import semantic_difference

COPIES = ("aten::copy_", "aten::clone")
INNER = (..., slice(1, -1), slice(1, -1))


def inputs(B=2, C=6, H=9, W=7):
    torch.manual_seed(0)
    shapes = ((B, C, H, W), (B, C, H, W), (5, C, 3, 3))
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def agree(found, expected, tensors, y):
    gradients = [torch.autograd.grad((x * y).sum(), tensors) for x in (found, expected)]
    torch.testing.assert_close([found, *gradients[0]], [expected, *gradients[1]])


def test_unfold_is_semantic_difference():
    tensors = inputs()
    found, expected = rivals.unfold(*tensors), semantic_difference(*tensors, impl="reference")
    agree(found, expected, tensors, torch.randn_like(found))


def test_pixel_adaptive_less_what_it_makes_of_constants_is_semantic_difference():
    """Σ_q W S u_q − Σ_i u_p,i Σ_q W_i S, S gaussian with λ = 1 / √C. Inside: theirs does not repeat the border."""
    u, v, weight = tensors = inputs()
    C = u.shape[1]
    ones = torch.eye(C, dtype=u.dtype).view(C, 1, C, 1, 1).expand(C, *u.shape)
    constants = sum(u[:, i : i + 1] * rivals.pixel_adaptive(ones[i], v, weight) for i in range(C))
    found = rivals.pixel_adaptive(*tensors) - constants
    expected = semantic_difference(*tensors, similarity="gaussian", scale=C**-0.5, impl="reference")
    agree(found[INNER], expected[INNER], tensors, torch.randn_like(found[INNER]))


def test_central_difference_is_the_published_pair_of_convolutions():
    u, _, weight = tensors = inputs()
    published = F.conv2d(u, weight, padding=1) - F.conv2d(u, weight.sum((2, 3), keepdim=True))
    torch.testing.assert_close(rivals.central_difference(*tensors), published)


@pytest.mark.parametrize("name", ["unfold", "pixel adaptive", "central difference"])
def test_no_copy_of_what_is_unfolded_is_left(name):
    tensors = [x.detach().float().requires_grad_() for x in inputs()]
    _, C, H, W = tensors[0].shape
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as run:
        y = rivals.OPERATORS[name](*tensors)
        torch.autograd.grad(y, tensors, torch.randn_like(y), allow_unused=True)
    calls = [event for event in run.events() if event.input_shapes and event.input_shapes[0]]
    sizes = {event.name: torch.Size(event.input_shapes[0]).numel() for event in calls}
    assert sizes["aten::randn_like"] == y.numel()  # the shapes are there
    large = [e.name for e in calls if e.name in COPIES and torch.Size(e.input_shapes[0]).numel() >= 9 * C * H * W]
    assert not large
