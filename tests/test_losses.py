"""Losses: void counts nowhere, parity with torch where there is none, class weights."""

import pytest
import torch
import torch.nn.functional as F

from crispseg.losses import class_weights, cross_entropy, ohem_cross_entropy


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0])])
def test_cross_entropy_is_torchs_on_the_pixels_that_count(weights):
    logits, target = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    target[0, :2] = 255
    expected = F.cross_entropy(logits, target, weight=weights, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, target, class_weights=weights), expected)


@pytest.mark.parametrize("function", [cross_entropy, ohem_cross_entropy])
def test_void_changes_neither_value_nor_gradient(function):
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    target[0, 1] = 255
    changed = logits.clone()
    changed[:, :, 1] = torch.randn(1, 3, 4)
    logits.requires_grad_()
    loss = function(logits, target)
    torch.testing.assert_close(loss, function(changed, target))
    loss.backward()
    assert logits.grad[:, :, 1].abs().max() == 0


@pytest.mark.parametrize("function", [cross_entropy, ohem_cross_entropy])
def test_a_batch_of_void_gives_zero_and_a_gradient_of_zero(function):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = function(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_ohem_keeps_the_hard_pixels_and_at_least_its_share():
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 0] = torch.tensor([5.0, 3.0, 0.0, -2.0])  # class 0 ever less likely
    target = torch.zeros(1, 1, 4, dtype=torch.long)
    per_pixel = F.cross_entropy(logits, target, reduction="none").flatten()
    torch.testing.assert_close(ohem_cross_entropy(logits, target), per_pixel[2:].mean())
    torch.testing.assert_close(ohem_cross_entropy(logits, target, min_kept=0.75), per_pixel[1:].mean())


def test_class_weights_have_mean_one_over_the_classes_that_occur():
    for kind in ("median_frequency", "inverse_sqrt"):
        weights = class_weights(torch.tensor([100, 10, 0, 1]), kind)
        torch.testing.assert_close(weights[[0, 1, 3]].mean(), torch.tensor(1.0))
        assert weights[2] == 1
        assert weights[0] < weights[1] < weights[3]


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"logits \(B, K, H, W\)"):
        cross_entropy(torch.randn(1, 3, 4, 4), torch.zeros(1, 5, 4))
