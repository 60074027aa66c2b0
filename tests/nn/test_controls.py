"""The controls in the operator's place are what their definitions say, and start where a convolution starts."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import build_model
from crispseg.nn import SemanticDifferenceConv2d, SemanticDiffusion, SemanticDiffusionNeck

CONTROLS = ["conv", "zero-start", "held", "central"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def operator(name: str, channels=6, **options):
    return SemanticDiffusion(channels, operator=name, **options).operator


def by_definition(name: str, u: Tensor, W: Tensor, dilation: int, groups: int) -> Tensor:
    """Σ_q W_q u_{p+q} written out tap by tap; the border is zeros, or repeated for ``central``."""
    W, k = W.clone(), W.shape[-1]
    if name in ("held", "central"):
        W[..., k // 2, k // 2] -= W.sum((2, 3))
    r = k // 2 * dilation
    padded = F.pad(u, [r] * 4, mode="replicate") if name == "central" else F.pad(u, [r] * 4)
    height, width = u.shape[-2:]
    y = 0
    for i in range(k):
        for j in range(k):
            u_q = padded[..., i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            y = y + F.conv2d(u_q, W[:, :, i, j, None, None], groups=groups)
    return y


@pytest.mark.parametrize("k, dilation, groups", [(3, 1, 1), (5, 2, 1), (3, 2, 3)])
@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_is_its_definition(name, k, dilation, groups):
    module = operator(name, kernel_size=k, dilation=dilation, groups=groups).double()
    u = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    torch.nn.init.normal_(module.weight)
    expected = by_definition(name, u, module.weight.detach(), dilation, groups)
    torch.testing.assert_close(module(u, torch.full_like(u, torch.nan)), expected)  # the guide is not looked at


def test_held_kernels_stay_at_zero_sum_and_the_others_are_free():
    flat, sums = torch.ones(1, 6, 9, 9, dtype=torch.float64), {}
    for name in CONTROLS:
        torch.manual_seed(0)
        module = operator(name).double()
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        sums[name] = [module(flat, flat)[..., 4, 4].abs().max().item()]
        module(torch.rand_like(flat), flat).sum().backward()
        optimizer.step()
        sums[name].append(module(flat, flat)[..., 4, 4].abs().max().item())
    started, after = ({name: s[i] < 1e-6 for name, s in sums.items()} for i in (0, 1))
    assert started == {"conv": False, "zero-start": True, "held": True, "central": True}
    assert after == {"conv": False, "zero-start": False, "held": True, "central": True}


def test_every_operator_starts_with_the_kernels_of_a_convolution():
    """nn.Conv2d's own start, with the same random numbers; ``zero-start`` then moves the centre taps alone."""
    torch.manual_seed(1)
    start = torch.nn.Conv2d(6, 6, 3, padding=1, bias=False).weight
    assert start.abs().max() <= 1 / math.sqrt(6 * 9)  # what it is known to be: uniform within 1 / √(fan-in)
    off_centre = torch.ones(3, 3, dtype=torch.bool)
    off_centre[1, 1] = False
    for name in (*CONTROLS, "sdn"):
        torch.manual_seed(1)
        weight = operator(name).weight
        assert torch.equal(weight[..., off_centre], start[..., off_centre])
        same_centre = torch.equal(weight[..., 1, 1], start[..., 1, 1])
        assert same_centre == (name != "zero-start")
    torch.manual_seed(1)
    assert torch.equal(SemanticDifferenceConv2d(6, 6).weight, start)


def test_the_response_is_normalised_or_goes_in_as_it_is():
    u, v = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    for norm in (True, False):
        sdn = SemanticDiffusion(6, norm=norm, identity=False)
        y = sdn.operator(u, v)
        if norm:
            y = (y - y.mean((0, 2, 3), True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
            y = y.clamp(min=0)
        expected = u + F.conv2d(torch.cat([u, y], 1), sdn.fusion.mix.weight, sdn.fusion.mix.bias)
        torch.testing.assert_close(sdn(u, v), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["held", "zero-start"])
def test_a_neck_of_it_is_the_identity_at_first(name):
    features = [torch.randn(1, 8, 7, 9), torch.randn(1, 12, 4, 5)]
    assert all(torch.equal(a, b) for a, b in zip(SemanticDiffusionNeck([8, 12], operator=name)(features), features))


def test_a_control_goes_into_a_model_by_its_name():
    model = build_model("tf_efficientnet_lite0", "fcn", 3, neck="held", pretrained=False)
    assert any(type(m) is type(operator("held")) for m in model.modules())
