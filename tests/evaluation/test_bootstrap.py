"""The bootstrap is paired, resamples groups whole, holds exact sums, and its intervals cover as often as they say."""

import pytest
import torch

from crispseg.errors import UsageError
from crispseg.evaluation import group_images, interval, paired_bootstrap
from crispseg.evaluation.verdict import Difference, caveats, verdict


def share(counts):
    return {"share": counts["right"].double() / counts["all"].double()}


def side(right):
    right = torch.as_tensor(right)
    return {"right": right, "all": torch.full_like(right, 100)}


def test_every_replicate_is_the_score_of_some_multiset_of_images():
    right = torch.tensor([0, 1, 2])
    draws = paired_bootstrap([[side(right)]], torch.arange(3), share, samples=300)["share"][0]
    possible = {(a + b + c) / 300 for a in range(3) for b in range(3) for c in range(3)}
    assert set(draws.tolist()) <= possible
    assert len(set(draws.tolist())) == len(possible)


def test_sides_see_the_same_images():
    right = torch.randint(0, 90, (40,), generator=torch.Generator().manual_seed(0))
    draws = paired_bootstrap([[side(right)], [side(right + 7)]], torch.arange(40), share)["share"]
    assert (draws[1] - draws[0]).tolist() == pytest.approx([0.07] * 2000)


def test_images_of_a_group_come_together():
    right = torch.tensor([10, 10, 90, 90])
    draws = paired_bootstrap([[side(right)]], torch.tensor([0, 0, 1, 1]), share, samples=500)["share"][0]
    assert set(draws.tolist()) == {0.1, 0.5, 0.9}


def test_grouping_neighbours_widens_the_interval():
    generator = torch.Generator().manual_seed(1)
    right = torch.randint(20, 80, (10,), generator=generator).repeat_interleave(20)
    widths = []
    for group in (torch.arange(200), torch.arange(10).repeat_interleave(20)):
        low, high = interval(paired_bootstrap([[side(right)]], group, share)["share"][0])
        widths.append(float(high - low))
    assert widths[1] > 3 * widths[0]


def test_trainings_are_the_outer_level():
    """Images all alike: what is left is the spread of the trainings, its variance that of a mean of S, unbiased."""
    runs = [side(torch.full((30,), v)) for v in (40, 50, 60)]
    draws = paired_bootstrap([runs], torch.arange(30), share, samples=20_000)["share"][0]
    assert draws.mean().item() == pytest.approx(0.5, abs=0.002)
    assert draws.var().item() == pytest.approx(0.1**2 / 3, rel=0.05)
    one = paired_bootstrap([runs[:1]], torch.arange(30), share, samples=100)["share"][0]
    assert set(one.tolist()) == {0.4}


def test_a_seed_repeats_the_draws():
    right = torch.arange(50)
    first, again, other = (
        paired_bootstrap([[side(right)]], torch.arange(50), share, seed=seed)["share"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for trial in range(200):
        right = torch.randint(0, 101, (40,), generator=generator)
        low, high = interval(
            paired_bootstrap([[side(right)]], torch.arange(40), share, samples=400, seed=trial)["share"][0]
        )
        hits += bool(low <= 0.5 <= high)
    assert 0.88 <= hits / 200 <= 0.99


def test_undefined_replicates_are_left_out():
    low, high = interval(torch.tensor([0.2, float("nan"), 0.4, float("nan")]))
    assert 0.2 <= low < high <= 0.4


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "no regular expression"), ("x", "finds nothing in the image name 'a'")]
)
def test_patterns_that_do_not_fit(pattern, words):
    with pytest.raises(UsageError, match=words):
        group_images(["a", "b"], pattern)


def test_verdicts():
    better, worse = Difference("miou", 0.02, 0.01, 0.03), Difference("boundary_iou", -0.02, -0.03, -0.01)
    unclear = Difference("boundary_f_3", 0.01, -0.01, 0.03)
    assert verdict("b", "a", [unclear]).startswith(
        "No evidence that b is better or worse than a: boundary F at 3 px +1.0"
    )
    assert verdict("b", "a", [better, unclear]).startswith(
        "b is better than a on mIoU +2.0 points [+1.0, +3.0]; no evidence"
    )
    assert "worse on Boundary IoU −2.0 points" in verdict("b", "a", [better, worse])
    assert verdict("b", "a", [worse]).startswith("b is worse than a on Boundary IoU")


def test_caveats_name_what_the_intervals_do_not_cover():
    said = " ".join(caveats([1, 3], 5, False, 10))
    for words in ("one throw of the dice", "Only 5 images", "--group", "one in twenty"):
        assert words in said
    assert caveats([5, 5], 100, True, 1) == []
