"""Scores averaged along the flow: less flicker of what stands still, none of what was never there, nothing late."""

import pytest
import torch

from crispseg.inference import Steady, optical_flow
from crispseg.metrics.temporal import carry, visible

pytest.importorskip("cv2")


def texture(height=96, width=128, seed=0):
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (fine[0] * 255).byte()


def test_the_flow_is_where_a_pixel_lies_in_the_other_frame():
    frame = texture()
    other = frame.roll((2, 5), (1, 2))  # what is at p lies at p + (5, 2) there
    flow = optical_flow(frame, other)[:, 16:-16, 16:-16]
    assert flow.shape == (2, 64, 96) and flow.dtype == torch.float32
    assert float((flow - torch.tensor([5.0, 2.0])[:, None, None]).abs().median()) < 0.2
    assert optical_flow(frame[:, :5, :5], frame[:, :5, :5]).abs().sum() == 0


def test_scores_are_the_average_along_the_flow():
    first, second = texture(), texture().roll((1, 3), (1, 2))
    z = torch.randn(2, 4, 96, 128, generator=torch.Generator().manual_seed(1))
    steady = Steady(0.25)
    assert torch.equal(steady(first, z[0]), z[0].softmax(0))
    found = steady(second, z[1])
    flow, back = optical_flow(second, first), optical_flow(first, second)
    both, p, held = visible(flow, back), z.softmax(1), carry(z[0].softmax(0), flow)
    torch.testing.assert_close(found[:, both], (0.75 * p[1] + 0.25 * held)[:, both])
    torch.testing.assert_close(found[:, ~both], p[1][:, ~both])
    assert 0.5 < both.float().mean() < 1
    torch.testing.assert_close(found.sum(0), torch.ones(96, 128))


def test_what_flickers_on_a_picture_that_stands_still_flickers_less():
    frame, draw, steady = texture(), torch.Generator().manual_seed(2), Steady()
    truth = torch.zeros(2, 96, 128)
    truth[0, :, :64], truth[1, :, 64:] = 1, 1
    noisy = [truth + 0.8 * torch.randn(truth.shape, generator=draw) for _ in range(8)]
    plain = [z.argmax(0) for z in noisy]
    steadied = [steady(frame, z).argmax(0) for z in noisy]
    plain, steadied = (torch.stack(labels[2:]) != truth.argmax(0) for labels in (plain, steadied))
    assert steadied.float().mean() < 0.6 * plain.float().mean()


def test_a_weight_of_one_is_refused():
    with pytest.raises(ValueError, match="weight must be at least 0 and below 1, found 1"):
        Steady(1)
