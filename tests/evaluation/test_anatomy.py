"""Each wrong pixel has one kind, and a boundary that was moved by n px is measured as moved by n px."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.evaluation import KINDS, Settings, error_kinds, suite
from crispseg.evaluation.anatomy import DISPLACED, INTERIOR, INVENTED, MISSED, anatomy_counts
from crispseg.metrics.labels import codes


def anatomy(pred, truth, classes=3, d=8):
    return anatomy_counts(*codes(pred, truth, classes), classes, d=d)


def halves(split, size=60):
    truth = torch.zeros(size, size, dtype=torch.int64)
    truth[:, split:] = 1
    return truth


def noise(height, width, seed):
    """Any classes of three, a fifth of the truth void."""
    generator = torch.Generator().manual_seed(seed)
    pred, truth = torch.randint(0, 3, (2, height, width), generator=generator)
    return pred, truth.masked_fill(torch.rand(height, width, generator=generator) < 0.2, 255)


@pytest.mark.parametrize("shift", [-3, -1, 1, 2, 5])
def test_a_moved_straight_boundary_is_displaced_by_just_that(shift):
    truth, pred = halves(30), halves(30 - shift)
    signed, absolute = anatomy(pred, truth).displacement()
    assert signed[0, 1].item() == shift  # > 0: class 1 has grown into class 0
    assert signed[1, 0].item() == -shift
    assert absolute[0, 1].item() == abs(shift)


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_a_moved_diagonal_boundary_too(shift):
    y, x = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    truth, pred = (x > y).long(), (x > y - shift).long()
    signed, _ = anatomy(pred, truth).displacement()
    assert signed[0, 1].item() == pytest.approx(shift / math.sqrt(2), rel=0.02)


def test_there_and_back_cancels_in_the_sign_only():
    truth, pred = halves(30), halves(30)
    pred[:30, 28:30] = 1
    pred[30:, 30:32] = 0
    signed, absolute = anatomy(pred, truth).displacement()
    assert (signed[0, 1].item(), absolute[0, 1].item()) == (0.0, 2.0)


def test_the_four_kinds():
    truth = torch.zeros(100, 100, dtype=torch.int64)
    truth[:, 60:] = 1
    truth[10:14, 10:14] = 2  # an object, missed
    pred = torch.zeros_like(truth)
    pred[:, 58:] = 1  # a boundary, displaced by 2 px
    pred[70:76, 20:26] = 2  # an object, invented
    pred[40:50, 70:80] = 0  # class 0 far from class 0 …
    pred[45, 58:70] = 0  # … but hanging together with it, so not an object of its own
    kinds = error_kinds(pred, truth, 3, d=3)
    assert (kinds[10:14, 10:14] == MISSED).all()
    assert (kinds[70:76, 20:26] == INVENTED).all()
    assert (kinds[:40, 58:60] == DISPLACED).all()
    assert (kinds[40:50, 70:80] == INTERIOR).all()
    assert (kinds == MISSED).sum() == 16
    assert (kinds == INVENTED).sum() == 36


def test_a_missed_pole_is_missed_though_all_of_it_is_near_its_boundary():
    truth = torch.zeros(50, 50, dtype=torch.int64)
    truth[5:45, 24:27] = 1
    kinds = error_kinds(torch.zeros_like(truth), truth, 2, d=5)
    assert (kinds[truth == 1] == MISSED).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_every_wrong_pixel_and_no_other_has_a_kind(height, width, seed):
    pred, truth = noise(height, width, seed)
    kinds = error_kinds(pred, truth, 3, d=2)
    assert torch.equal(kinds > 0, (pred != truth) & (truth != 255))
    counts = anatomy(pred, truth, d=2)
    assert counts.kinds.sum() == (kinds > 0).sum()
    assert counts.labelled.tolist() == [(truth == c).sum().item() for c in range(3)]
    for at in range(4):
        for c in range(3):
            assert counts.kinds[at, c].sum() == ((kinds == at + 1) & (truth == c)).sum()


def test_displaced_is_what_its_definition_says_by_brute_force():
    generator = torch.Generator().manual_seed(5)
    pred, truth = torch.randint(0, 3, (2, 12, 12), generator=generator)
    kinds = error_kinds(pred, truth, 3, d=1)
    for y, x in (kinds == DISPLACED).nonzero().tolist():
        window = truth[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert (window == pred[y, x]).any()
    for y, x in (kinds == INTERIOR).nonzero().tolist():
        window = truth[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert not (window == pred[y, x]).any()


def test_length_of_a_boundary_straight_and_diagonal():
    straight = anatomy(halves(30), halves(30))
    assert straight.length()[0, 1].item() == 60
    y, x = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    stairs = (x > y).long()
    assert anatomy(stairs, stairs).length()[0, 1].item() == pytest.approx(100 * math.sqrt(2), rel=0.01)


def test_a_class_that_takes_from_two_neighbours_has_grown():
    truth = torch.zeros(60, 60, dtype=torch.int64)
    truth[:, 20:40] = 1
    truth[:, 40:] = 2
    pred = truth.clone()
    pred[:, 18:41] = 1  # by 2 px on one side, by 1 px on the other
    grown, moved = anatomy(pred, truth).growth()
    assert grown.tolist() == [-2.0, 1.5, -1.0]
    assert moved.tolist() == [2.0, 1.5, 1.0]


def test_void_is_nowhere():
    truth, pred = halves(30), halves(25)
    truth[:20] = 255
    counts = anatomy(pred, truth)
    assert counts.labelled.sum() == 40 * 60
    assert counts.kinds.sum() == 40 * 5
    assert counts.length()[0, 1].item() == 40


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10**6))
def test_a_kind_costs_the_miou_that_its_pixels_would_gain(height, width, seed):
    pred, truth = noise(height, width, seed)
    truth[0, 0] = 0  # something is labelled
    kinds, names = error_kinds(pred, truth, 3), ["a", "b", "c"]
    measured = suite([("image", pred, truth)], names).summary()
    for at, name in enumerate(KINDS, start=1):
        mended = suite([("image", torch.where(kinds == at, truth, pred), truth)], names).summary()
        assert measured["anatomy"]["miou_cost"][name] == pytest.approx(mended["miou"] - measured["miou"])


def test_what_boundaries_cost_is_said_apart_from_what_was_missed():
    truth = halves(30)
    truth[20:24, 10:14] = 2  # 16 pixels, missed
    pred = halves(28)  # a straight boundary, 2 px off
    cost = dict(zip(KINDS, anatomy(pred, truth).cost().tolist(), strict=True))
    before = 1664 / 1800 + 1800 / 1920 + 0
    assert cost == pytest.approx(
        {
            "displaced": (1784 / 1800 + 1 + 0 - before) / 3,
            "missed": (1664 / 1784 + 1800 / 1920 + 1 - before) / 3,
            "interior": 0,
            "invented": 0,
        }
    )


def test_the_summary_adds_up():
    pred, truth = halves(28), halves(30)
    summary = suite([("a", pred, truth), ("b", truth, truth)], ["sky", "road"]).summary()["anatomy"]
    assert summary["wrong"] == pytest.approx(2 / 120)
    assert sum(summary[kind] for kind in KINDS) == pytest.approx(summary["wrong"])
    assert summary["per_class"]["sky"]["displaced"] == pytest.approx(2 / 60)
    (pair,) = summary["displacement_px"]
    assert (pair["from"], pair["to"], pair["signed"], pair["boundary_px"]) == ("sky", "road", 1.0, 120)


@pytest.mark.parametrize(("options", "displaced"), [({}, 0.03), ({"width": 2}, 0.02), ({"ratio": 0.1}, 0.1)])
def test_the_suite_measures_displacement_by_the_width_that_is_asked_for(options, displaced):
    """A boundary 10 px off in a picture of 100 px: those within d of it are displaced, the rest is interior."""
    maps = [("x", halves(40, 100), halves(50, 100))]
    found = suite(maps, ["a", "b"], settings=Settings(**options)).summary()["anatomy"]
    assert found["displaced"] == pytest.approx(displaced)
    assert found["displaced"] + found["interior"] == pytest.approx(0.1)


def test_the_suite_takes_one_map_an_image():
    both = torch.zeros(2, 8, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"x: expected one label map \(H, W\) an image, found shape \(2, 8, 8\)"):
        suite([("x", both, both)], ["a", "b"])
