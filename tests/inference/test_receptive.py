"""How far a network looks: exact for stacks of convolutions, and what it is on networks that look everywhere."""

import pytest
import torch
from torch import nn

from crispseg.inference import default_overlap, receptive_field


def stack(*sizes, dilation=1):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 4, 4, size, padding="same", dilation=dilation) for i, size in enumerate(sizes)]
    return nn.Sequential(*layers).eval()


class Mean(nn.Module):
    """It looks at everything alike."""

    def forward(self, x):
        return x + x.mean((-2, -1), keepdim=True)


@pytest.mark.parametrize(
    ("model", "radius"),
    [(stack(1), 0), (stack(3), 1), (stack(3, 5, 7), 6), (stack(3, 3, dilation=4), 8), (stack(1, 9), 4)],
)
def test_the_radius_of_a_stack_of_convolutions_is_exact(model, radius):
    field = receptive_field(model, size=(48, 40))
    assert field.radius == radius
    assert field.effective <= radius


def test_the_effective_radius_holds_the_share_that_is_asked_for():
    model = nn.Conv2d(3, 1, 5, padding=2, bias=False).eval()
    with torch.no_grad():
        model.weight.fill_(0.0)
        model.weight[..., 2, 2], model.weight[..., 2, 3], model.weight[..., 0, 0] = 6.0, 3.0, 1.0
    shares = {0.5: 0, 0.6: 0, 0.7: 1, 0.9: 1, 0.91: 2, 1.0: 2}
    assert {s: receptive_field(model, size=(16, 16), share=s).effective for s in shares} == shares


def test_the_overlap_is_four_radii_and_three_quarters_of_a_window_at_most():
    assert default_overlap(stack(3), (128, 128)) == 32
    wide = stack(31)
    assert receptive_field(wide, size=(96, 96)).effective in (13, 14, 15)
    assert default_overlap(wide, (128, 256)) == 64
    assert default_overlap(Mean().eval(), (256, 512)) == 192


def test_a_network_that_does_not_look_has_no_radius():
    field = receptive_field(lambda x: x * 0, size=(8, 8))
    assert (field.effective, field.radius) == (0, 0)


def test_a_share_is_one():
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, found 0"):
        receptive_field(stack(1), share=0)
