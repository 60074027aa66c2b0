"""Losses: void counts nowhere, parity with torch where there is none, class weights."""

import math

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


def by_brute_force(logits, target, weights, threshold, min_kept):
    """OHEM pixel by pixel: hard is what is unlikely, whatever the class weighs; at least the hardest share is kept."""
    pixels = []
    for z, t in zip(logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).tolist(), target.flatten().tolist()):
        if t != 255:
            p = math.exp(z[t]) / sum(map(math.exp, z))
            pixels.append((p, weights[t]))
    pixels.sort()
    kept = max(1, int(min_kept * len(pixels)))
    hard = [(p, w) for i, (p, w) in enumerate(pixels) if p < threshold or i < kept]
    return sum(-w * math.log(p) for p, w in hard) / sum(w for _, w in hard)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.1, 1.0, 20.0)])
@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.7, 1 / 16), (0.3, 1 / 16), (0.01, 0.4), (0.01, 1e-9), (1.0, 0.5)]
)
def test_ohem_is_what_it_is_pixel_by_pixel(weights, threshold, min_kept):
    logits, target = 2 * torch.randn(2, 3, 6, 7), torch.randint(0, 3, (2, 6, 7))
    target[1, 2:5] = 255
    given = None if weights == (1.0, 1.0, 1.0) else torch.tensor(weights)
    loss = ohem_cross_entropy(logits, target, class_weights=given, threshold=threshold, min_kept=min_kept)
    assert loss.item() == pytest.approx(by_brute_force(logits, target, weights, threshold, min_kept), rel=1e-5)


@pytest.mark.parametrize("certain", [0, 8])  # some pixels are hard; none is, and the share alone decides
def test_ohem_keeps_what_is_below_seven_tenths_and_a_sixteenth_if_nothing_else_is_asked_for(certain):
    target = torch.randint(0, 3, (2, 6, 7))
    logits = 2 * torch.randn(2, 3, 6, 7) + certain * F.one_hot(target, 3).permute(0, 3, 1, 2)
    expected = by_brute_force(logits, target, (1.0, 1.0, 1.0), 0.7, 1 / 16)
    assert ohem_cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_a_class_of_weight_0_counts_nowhere_in_ohem():
    logits, target = torch.randn(1, 3, 6, 7, requires_grad=True), torch.randint(0, 3, (1, 6, 7))
    loss = ohem_cross_entropy(logits, target, class_weights=torch.tensor([0.0, 1.0, 2.0]))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    assert not logits.grad.permute(0, 2, 3, 1)[target == 0].any()


def test_class_weights_are_their_formulas():
    """f = 0.5, 0.3, 0.2: median(f)/f = 0.6, 1, 1.5 and 1/√f = 1.414, 1.826, 2.236, both brought to a mean of 1."""
    counts = torch.tensor([50, 30, 0, 20])
    median = torch.tensor([0.6, 1.0, 1.0, 1.5]) * torch.tensor([3 / 3.1, 3 / 3.1, 1.0, 3 / 3.1])
    torch.testing.assert_close(class_weights(counts, "median_frequency"), median)
    root = torch.tensor([0.5, 0.3, 0.2]).rsqrt()
    torch.testing.assert_close(class_weights(counts, "inverse_sqrt")[[0, 1, 3]], root / root.mean())
    assert class_weights(counts, "inverse_sqrt")[2] == 1


def test_a_loss_is_computed_in_float32_whatever_the_logits_are():
    logits, target = torch.randn(1, 3, 20, 20).bfloat16(), torch.randint(0, 3, (1, 20, 20))
    for function in (cross_entropy, ohem_cross_entropy):
        assert function(logits, target) == function(logits.float(), target)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"logits \(B, K, H, W\)"):
        cross_entropy(torch.randn(1, 3, 4, 4), torch.zeros(1, 5, 4))
