"""Temporal consistency: what moves with the picture agrees, what is hidden counts nowhere, and the counts by hand."""

import math
from itertools import pairwise

import pytest
import torch

from crispseg.metrics import BoundaryFScore, TemporalConsistency
from crispseg.metrics.temporal import carry, visible


def shift(dx, dy, height=20, width=30):
    return torch.tensor([dx, dy])[:, None, None].expand(2, height, width).contiguous()


def blocks(height=20, width=30):
    return (torch.arange(height)[:, None] // 4 + torch.arange(width) // 5) % 3


def test_labels_that_move_with_the_picture_agree_and_others_do_not():
    """The picture moves 3 px to the right and 2 down: what is at p was at p − (3, 2)."""
    before = blocks()
    moved = before.roll((2, 3), (0, 1))
    flow, back = shift(-3.0, -2.0), shift(3.0, 2.0)
    metric = TemporalConsistency(3)
    metric.update(moved, before, flow, back)
    found = metric.compute()
    assert found["disagreement"] == 0.0 and found["boundary_f"] == 1.0 and found["frames"] == 1
    assert found["visible"] == 18 * 27 / 600
    metric.reset()
    metric.update(before, before, flow, back)
    expected = (before != moved)[2:, 3:].float().mean()
    assert metric.compute()["disagreement"] == pytest.approx(float(expected))


def test_counts_add_up_over_frames():
    draw = torch.Generator().manual_seed(0)
    labels = [torch.randint(0, 3, (20, 30), generator=draw) for _ in range(3)]
    still, total, right, boundary = shift(0.0, 0.0), 0, 0, BoundaryFScore(3, tolerances=[1])
    metric = TemporalConsistency(3)
    for before, label in pairwise(labels):
        metric.update(label, before, still, still)
        total, right = total + label.numel(), right + int((label == before).sum())
        boundary.update(before, label)
    found = metric.compute()
    assert found["disagreement"] == pytest.approx(1 - right / total)
    assert found["boundary_f"] == pytest.approx(float(boundary.compute()["boundary_f"]))


def test_void_in_either_frame_counts_nowhere():
    before, label, still = torch.tensor([[0, 255, 1, 1]]), torch.tensor([[0, 1, 255, 0]]), shift(0.0, 0.0, 1, 4)
    metric = TemporalConsistency(2)
    metric.update(label, before, still, still)
    assert metric.compute()["disagreement"] == 0.5
    metric.reset()
    metric.update(torch.full((1, 4), 255), before, still, still)
    assert math.isnan(metric.compute()["disagreement"])


def test_a_pixel_is_seen_in_both_if_the_way_back_leads_home():
    flow, back = shift(2.0, 0.0), shift(-2.0, 0.0)
    back[:, 5, 10] = torch.tensor([3.0, 0.0])
    both = visible(flow, back)
    assert not both[5, 8] and both[5, 7] and both[5, 10]
    assert both[:, :28].sum() == 20 * 28 - 1 and not both[:, 28:].any()


def test_carrying_is_linear_between_pixels_and_exact_on_them():
    values = torch.rand(2, 20, 30)
    found = carry(values, shift(1.0, 2.0))
    torch.testing.assert_close(found[:, :18, :29], values[:, 2:, 1:])
    half = carry(values, shift(0.5, 0.0))
    torch.testing.assert_close(half[:, :, :29], (values[:, :, :29] + values[:, :, 1:]) / 2)
    assert torch.equal(carry(values, shift(0.4, -0.4), nearest=True), values)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected labels \(H, W\) of one size and flows \(2, H, W\), found"):
        TemporalConsistency(2).update(blocks(), blocks(), shift(0.0, 0.0, 3), shift(0.0, 0.0))
