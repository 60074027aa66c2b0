"""What makes the controls comparable: the plain convolution is one, all start as ``Conv2d``, options are heeded."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crispseg.nn import SemanticDiffusion


@pytest.mark.parametrize("geometry", [{}, {"kernel_size": 5}, {"dilation": 2}, {"groups": 2}])
def test_the_control_conv_is_a_convolution_with_zeros_around_that_does_not_see_the_guide(geometry):
    torch.manual_seed(0)
    conv = SemanticDiffusion(6, operator="conv", **geometry).operator
    u, v = torch.randn(2, 6, 9, 7), torch.randn(2, 6, 9, 7)
    padding = geometry.get("kernel_size", 3) // 2 * geometry.get("dilation", 1)
    rest = {key: value for key, value in geometry.items() if key != "kernel_size"}
    torch.testing.assert_close(conv(u, v), F.conv2d(u, conv.weight, padding=padding, **rest))
    assert not hasattr(conv, "bias") or conv.bias is None


@pytest.mark.parametrize("operator", ["sdn", "conv", "central"])
def test_every_operator_starts_as_conv2d_does_under_the_same_seed(operator):
    torch.manual_seed(0)
    expected = nn.Conv2d(6, 6, 3, bias=False).weight
    torch.manual_seed(0)
    assert torch.equal(SemanticDiffusion(6, operator=operator).operator.weight, expected)


@pytest.mark.parametrize("norm", [True, False])
def test_the_response_is_normalised_and_rectified_before_fusion_or_as_it_is(norm):
    torch.manual_seed(0)
    sdn = SemanticDiffusion(6, norm=norm, identity=False)
    u, v = torch.randn(2, 6, 9, 7), torch.randn(2, 6, 9, 7)
    y = sdn.operator(u, v)
    if norm:
        y = ((y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()).clamp(min=0)
    mixed = F.conv2d(torch.cat([u, y], 1), sdn.fusion.mix.weight, sdn.fusion.mix.bias)
    torch.testing.assert_close(sdn(u, v), u + mixed, rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, nn.BatchNorm2d) for module in sdn.modules()) is norm
