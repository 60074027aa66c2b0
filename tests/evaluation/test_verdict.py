"""Words: what is called better or worse, what two networks alone cannot say, what could not be measured."""

import math

import pytest

from crispseg.evaluation import Difference, verdict
from crispseg.evaluation.verdict import caveats

NAN = math.nan
BETTER, WORSE = Difference("miou", 0.02, 0.01, 0.03, 0.001), Difference("boundary_iou", -0.02, -0.03, -0.01, 0.001)
UNCLEAR = Difference("boundary_f_3", 0.01, -0.01, 0.03, 0.3)
LOST = Difference("boundary_f_3", NAN, NAN, NAN, NAN)


def said(*differences, trainings=(3, 3)):
    return verdict("b", "a", differences, trainings=trainings)


def test_verdicts():
    assert said(UNCLEAR).startswith("No evidence that b is better or worse than a: boundary F at 3 px +1.0")
    assert said(BETTER, UNCLEAR).startswith("b is better than a on mIoU +2.0 points [+1.0, +3.0]; no evidence")
    assert "worse on Boundary IoU −2.0 points" in said(BETTER, WORSE)
    assert said(WORSE).startswith("b is worse than a on Boundary IoU")


def test_an_interval_that_just_excludes_zero_is_not_called_when_others_stand_beside_it():
    corrected = Difference("miou", 0.02, 0.001, 0.039, 0.12)  # 0.04 by itself, the smallest of three
    assert said(corrected).startswith("No evidence")
    assert corrected.as_json()["verdict"] == "no evidence of a difference"


def test_one_training_each_says_nothing_of_methods():
    sentence = said(BETTER, WORSE, trainings=(1, 1))
    assert "these two networks differ by mIoU +2.0 points [+1.0, +3.0], Boundary IoU −2.0" in sentence
    assert sentence.endswith("one training each cannot tell the methods apart.")
    assert "better" not in sentence and "worse" not in sentence
    assert BETTER.as_json(networks=True)["verdict"] == "these networks differ"
    neither = Difference("miou", 0.004, -0.002, 0.011, 0.2)
    assert "no evidence that these two networks differ: mIoU +0.4 points" in said(neither, trainings=(1, 1))
    assert said(BETTER, trainings=(1, 5)).startswith("b is better than a")


def test_what_could_not_be_measured_is_said_and_never_nan():
    sentence = said(BETTER, LOST)
    assert "nan" not in sentence
    assert sentence.endswith("Not to be measured here: boundary F at 3 px.")
    assert said(LOST) == "No verdict on b and a. Not to be measured here: boundary F at 3 px."
    assert set(LOST.as_json().values()) == {None, "no verdict"}


def test_without_intervals_there_is_no_verdict():
    sentence = said(Difference("miou", 0.2, NAN, NAN, NAN))
    assert sentence.startswith("No verdict on b and a, which differ by mIoU +20.0 points: one image, or one group")


def test_a_verdict_needs_two_names():
    with pytest.raises(ValueError, match="two names"):
        verdict("a", "a", [BETTER], trainings=(2, 2))


def test_caveats_name_what_the_intervals_do_not_cover():
    found = " ".join(caveats([1, 1, 1], 5, 5.0, False, {"b": {"z": 8.0}}))
    for words in ("has one training", "Only 5 images", "--group", "2 contenders", "nowhere true: z (8 px)"):
        assert words in found
    assert "assumed to vary as they do" in caveats([1, 3], 50, 50, True, {})[0]
    assert "3 trainings" in caveats([5, 3], 50, 50, True, {})[0]
    assert caveats([5, 5], 55, 12.0, True, {})[0].endswith("count as 12 equal ones.")
    assert caveats([5, 5], 100, 90.0, True, {}) == []
    assert "4 trainings" in caveats([5, 4], 20, 20.0, True, {})[0]
    assert caveats([5, 5], 19, 19.0, True, {})[0].startswith("Only 19 groups")
    assert caveats([5, 5], 20, 20.0, True, {}) == []
    assert "2 contenders" in caveats([5, 5, 5], 20, 20.0, True, {})[0]
