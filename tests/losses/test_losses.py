"""Every loss is its formula, pixel by pixel; void counts nowhere; gradients are right; half precision is enough."""

import math
from functools import partial

import losses_by_hand
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from losses_by_hand import VOID, K, case, thinned_by_hand

from crispseg import UsageError
from crispseg.config import TrainingConfig
from crispseg.losses import LOSSES, Criterion, class_weights, cross_entropy, ohem_cross_entropy
from crispseg.losses.thinning import skeleton
from crispseg.names import LOSSES as NAMES

BY_HAND = {
    name.removeprefix("by_hand_"): value for name, value in vars(losses_by_hand).items() if name.startswith("by_hand_")
}
OPTIONS = {"active_boundary": {"share": 0.1}}


def loss_of(name):
    return lambda *inputs: LOSSES[name](*inputs, **OPTIONS.get(name, {}))


def test_there_is_one_for_every_name():
    assert tuple(LOSSES) == NAMES
    assert {*BY_HAND, "cross_entropy"} == set(LOSSES)  # cross-entropy: test_cross_entropy.py


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("name", BY_HAND)
def test_it_is_its_formula(name, void):
    logits, target = case(void=void)
    assert loss_of(name)(logits, target).item() == pytest.approx(BY_HAND[name](logits, target), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_void_changes_neither_value_nor_gradient(name):
    logits, target = case()
    void = (target == VOID)[:, None].expand_as(logits)
    changed = torch.where(void, 5 * torch.randn_like(logits), logits)
    logits.requires_grad_()
    loss = loss_of(name)(logits, target)
    torch.testing.assert_close(loss, loss_of(name)(changed, target))
    loss.backward()
    assert logits.grad[void].abs().max() == 0 and logits.grad[~void].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_void_gives_zero_and_a_gradient_of_zero(name):
    logits = torch.randn(2, K, 9, 9, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 9, 9), VOID))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("target", [torch.full((1, 9, 9), 2), torch.zeros(1, 1, 1, dtype=torch.long)])
@pytest.mark.parametrize("name", LOSSES)
def test_one_class_alone_and_one_pixel_alone_are_finite(name, target):
    logits = torch.randn(1, K, *target.shape[1:], requires_grad=True)
    loss = LOSSES[name](logits, target)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient_is_that_of_finite_differences(name):
    logits, target = case(size=(8, 8))
    if name == "active_boundary":  # where a border is predicted is a choice, and the neighbours get no gradient
        logits.requires_grad_()
        loss_of(name)(logits, target).backward()
        step = -1e-3 * logits.grad
        assert loss_of(name)(logits.detach() + step, target) < loss_of(name)(logits.detach(), target)
        return
    assert torch.autograd.gradcheck(
        lambda z: loss_of(name)(z, target), logits.requires_grad_(), atol=1e-6, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name, dtype):
    logits, target = case()
    logits = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](logits, target)
    assert loss.dtype == torch.float32 and torch.equal(loss, LOSSES[name](logits.float(), target))
    loss.backward()
    assert logits.grad.dtype == dtype and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_logits_that_are_sure_and_wrong_are_finite(name):
    target = case()[1]
    wrong = (1e4 * F.one_hot((target + 1) % K, K).permute(0, 3, 1, 2)).requires_grad_()
    loss = LOSSES[name](wrong, target)
    loss.backward()
    assert loss.isfinite() and wrong.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "boundary_weighted"])
def test_the_truth_is_better_than_its_shift(name):
    """Whatever the formula: a prediction two pixels off is worse than one that is right."""
    target = case(void=False)[1]
    right = 6.0 * F.one_hot(target, K).permute(0, 3, 1, 2)
    assert loss_of(name)(right, target) < loss_of(name)(right.roll(2, -1), target)


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_do_not_fit_are_told(name):
    with pytest.raises(ValueError, match=r"logits \(B, K, H, W\)"):
        LOSSES[name](torch.randn(1, 3, 4, 4), torch.zeros(1, 5, 4))


@pytest.mark.parametrize("seed", range(6))
def test_a_skeleton_is_that_of_all_pixels_looked_at_each_time(seed):
    blobs = np.kron(np.random.default_rng(seed).random((6, 8)) < 0.6, np.ones((5, 4))) > 0
    assert np.array_equal(skeleton(blobs), thinned_by_hand(blobs))


def test_the_default_criterion_is_cross_entropy_to_the_bit():
    logits, target = case()
    weights = class_weights(torch.tensor([5, 1, 9, 2]), "inverse_sqrt")
    for kind, function in (("cross_entropy", cross_entropy), ("ohem", ohem_cross_entropy)):
        found = []
        for loss in (Criterion(kind=kind, class_weights=weights), partial(function, class_weights=weights)):
            z = logits.float().requires_grad_()
            value = loss(z, target)
            value.backward()
            found.append((value, z.grad))
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_criterion_is_the_weighted_sum_and_class_weights_are_the_cross_entropys():
    logits, target = case()
    weights = torch.tensor([0.3, 1.0, 3.0, 1.0])
    criterion = Criterion(class_weights=weights, weights={"cross_entropy": 0.5, "dice": 2, "rmi": 0.0})
    expected = 0.5 * cross_entropy(logits, target, class_weights=weights) + 2 * LOSSES["dice"](logits, target)
    torch.testing.assert_close(criterion(logits, target), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"losses": {"dise": 1}}, "training.losses must be a mapping of losses to weights"),
        ({"losses": {"dice": -1}}, "training.losses must be"),
        ({"losses": {"dice": "much"}}, "training.losses must be"),
        ({"losses": {"dice": True}}, "training.losses must be"),
        ({"losses": {"dice": math.nan}}, "training.losses must be"),
        ({"losses": {"dice": 0}}, "training.losses must be"),
        ({"losses": {}}, "training.losses must be"),
        ({"losses": ["dice"]}, "training.losses must be"),
        ({"losses": {"dice": 1}, "loss": "ohem"}, "training.loss ohem does not apply: it is about cross_entropy"),
        ({"losses": {"dice": 1}, "class_weights": (1.0, 2.0)}, "training.class_weights 1.0 2.0 does not apply"),
        ({"losses": {"dice": 1, "cross_entropy": 0}, "loss": "ohem"}, "training.loss ohem does not apply"),
    ],
)
def test_losses_that_make_no_sense_are_told(options, said):
    with pytest.raises(UsageError, match=said):
        TrainingConfig(**options)


def test_an_image_without_a_border_moves_no_border():
    torch.manual_seed(0)
    z, t = torch.randn(2, 3, 12, 12), torch.zeros(2, 12, 12, dtype=torch.long)
    t[0, :, 6:] = 1
    both, alone = (LOSSES["active_boundary"](z[:n], t[:n], share=0.5) for n in (2, 1))
    assert both == alone > 0


def test_the_share_of_a_predicted_border_is_of_the_pixels_that_count():
    """Half the image void: as many pixels pass as of the other half alone."""
    torch.manual_seed(0)
    z, t = torch.randn(1, 3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.long)
    t[..., 20:], t[:, 20:] = 1, 255
    for share in (0.02, 0.1, 0.2):
        whole = LOSSES["active_boundary"](z, t, share=share)
        assert whole > 0
        alone = LOSSES["active_boundary"](z[:, :, :20], t[:, :20], share=share)
        assert whole.item() == pytest.approx(alone.item(), rel=0.01)  # what lies past an edge and void differ a little


def test_the_weight_of_a_large_region_s_border_is_bounded():
    """S = 40², C = 4 · 39 at the image's border: 1 − 2 C / S is 0.805, and α 0.8."""
    z, t = torch.zeros(1, 2, 40, 40), torch.zeros(1, 40, 40, dtype=torch.long)
    expected = (400 + 1600 - 1600) / (400 + 1600 - 1.8 * 800)
    assert LOSSES["boundary_dou"](z, t).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_an_infinite_logit_of_void_counts_nowhere(name):
    logits, target = case()
    never = torch.where(((target == VOID)[:, None] & (torch.arange(K) == 0)[:, None, None]), -torch.inf, logits)
    never.requires_grad_()
    loss = loss_of(name)(never, target)
    torch.testing.assert_close(loss, loss_of(name)(logits, target))
    loss.backward()
    assert never.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_learns_whatever_gamma_when_some_pixels_are_sure(gamma):
    logits, target = case()
    sure = torch.where((torch.arange(logits.shape[-1]) < 3), 1e3 * F.one_hot(target % K, K).permute(0, 3, 1, 2), logits)
    sure.requires_grad_()
    LOSSES["focal"](sure, target, gamma=gamma).backward()
    assert sure.grad.isfinite().all() and sure.grad.any()
