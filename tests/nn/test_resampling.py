"""Learned upsampling in the operator's place is its formula, pixel by pixel, and starts where its authors start it."""

import itertools
import math

import pytest
import torch

from crispseg import build_model
from crispseg.nn import SemanticDiffusion
from crispseg.nn.resampling import ContentReassembly, DynamicSampling


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def operator(name, channels=6, **options):
    return SemanticDiffusion(channels, operator=name, **options).operator.double()


def sampled(u, y, x):
    """u (C, H, W) between pixels, bilinear; outside, the border repeats."""
    height, width = u.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    a, b = y - top, x - left
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above, below = (
        (1 - b) * u[:, top, left] + b * u[:, top, right],
        (1 - b) * u[:, bottom, left] + b * u[:, bottom, right],
    )
    return (1 - a) * above + a * below


@pytest.mark.parametrize("groups", [1, 3])
def test_dysample_takes_each_pixel_from_its_place(groups):
    module, u = operator("dysample", groups=groups), torch.randn(2, 6, 5, 7).double()
    torch.nn.init.normal_(module.offset.weight, std=6)  # far: past the border too
    torch.nn.init.normal_(module.offset.bias, std=2)
    y = module(u, torch.full_like(u, torch.nan))  # the guide is not looked at
    offset = 0.25 * module.offset(u)
    for b, g, i, j in itertools.product(range(2), range(groups), range(5), range(7)):
        channels = slice(g * 6 // groups, (g + 1) * 6 // groups)
        dx, dy = offset[b, g, i, j].item(), offset[b, groups + g, i, j].item()
        torch.testing.assert_close(y[b, channels, i, j], sampled(u[b, channels], i + dy, j + dx), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("k", "dilation", "groups"), [(3, 1, 1), (1, 2, 3)])
def test_carafe_averages_each_pixels_neighbours(k, dilation, groups):
    module = operator("carafe", kernel_size=k, dilation=dilation, groups=groups)
    u = torch.randn(2, 6, 6, 8).double()
    y, r = module(u, torch.full_like(u, torch.nan)), (k + 2) // 2
    kernels = module.encode(torch.relu(module.reduce(u)))
    taps = list(itertools.product(range(-r, r + 1), repeat=2))
    for b, g, i, j in itertools.product(range(2), range(groups), range(6), range(8)):
        scores = [kernels[b, g * len(taps) + n, i, j].exp() for n in range(len(taps))]
        channels, expected = slice(g * 6 // groups, (g + 1) * 6 // groups), 0
        for w, (dy, dx) in zip(scores, taps):
            at = min(max(i + dy * dilation, 0), 5), min(max(j + dx * dilation, 0), 7)
            expected = expected + w / sum(scores) * u[b, channels, at[0], at[1]]
        torch.testing.assert_close(y[b, channels, i, j], expected)


def test_dysample_starts_as_the_map_itself_nearly_and_both_keep_constants():
    u = torch.rand(1, 8, 9, 9)
    assert (DynamicSampling(8)(u, None) - u).abs().max() < 1e-2
    for module in (DynamicSampling(8), ContentReassembly(8)):
        torch.testing.assert_close(module(torch.full_like(u, 2.5), None), torch.full_like(u, 2.5))
    assert math.isclose(DynamicSampling(400).offset.weight.std().item(), 1e-3, rel_tol=0.1)


@pytest.mark.parametrize("name", ["dysample", "carafe"])
@pytest.mark.parametrize("place", ["head", "encoder"])
def test_it_goes_into_a_model_by_its_name_and_in_half_precision(name, place):
    model = build_model("test_resnet", "fcn", 3, neck=name, place=place, pretrained=False, decoder_channels=8).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.rand(2, 3, 33, 47))
    logits.float().square().mean().backward()
    assert logits.isfinite().all() and logits.shape == (2, 3, 33, 47)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
