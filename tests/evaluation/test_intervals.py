"""Intervals: the chance in training and the choice of images, added; t where few trainings ask for it; bounds; Holm.

That they hold the truth as often as they say is shown by simulation (``benchmarks.coverage``), a part of it here.
"""

import math

import pytest
import torch
from scipy import stats

from benchmarks.coverage import IMAGES, NOISE, TRAININGS, World, coverage
from crispseg.evaluation import Noise, Side, combine, effective_groups, estimate, holm
from crispseg.evaluation.intervals import groups_of_means, noise_of


def alike(*values, images=40):
    """A side whose images are all alike: only its trainings differ."""
    values = torch.tensor(values, dtype=torch.float64)
    return Side(values, values.expand(images, -1))


def one_training(seed, sd, value=0.5):
    generator = torch.Generator().manual_seed(seed)
    return Side(
        torch.tensor([value], dtype=torch.float64), value + sd * torch.randn(4000, 1, generator=generator).double()
    )


def test_of_trainings_alone_it_is_the_interval_of_student():
    values = (0.50, 0.52, 0.56)
    found = estimate(alike(*values), groups=1e9)
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert float(found.low) == pytest.approx(low)
    assert float(found.high) == pytest.approx(high)


def test_of_two_sides_of_trainings_the_wider_of_pooled_and_welch_counts():
    a, b = (0.50, 0.52, 0.53, 0.49), (0.55, 0.60)
    found = estimate(alike(*b), alike(*a), groups=1e9)
    half = [
        (result.confidence_interval().high - result.confidence_interval().low) / 2
        for result in (stats.ttest_ind(b, a, equal_var=equal) for equal in (True, False))
    ]
    assert float(found.high - found.low) / 2 == pytest.approx(max(half))
    ts = [stats.ttest_ind(b, a, equal_var=equal) for equal in (True, False)]
    assert float(found.p) == pytest.approx(max(2 * stats.t.sf(abs(t.statistic), t.df * 2 / 3) for t in ts))


def test_of_images_alone_it_has_both_tails_and_as_many_degrees_of_freedom_as_groups():
    baseline, side = one_training(0, 0.0), one_training(1, 0.01, 0.52)
    found = estimate(side, baseline, groups=10)
    sd = math.sqrt(10 / 9) * side.replicates.std()
    half = stats.t.ppf(0.975, 9) * sd
    assert float(found.low) == pytest.approx(0.02 - float(half))
    assert float(found.high) == pytest.approx(0.02 + float(half))
    assert float(found.p) == pytest.approx(2 * stats.t.sf(0.02 / float(sd), 6))


def test_a_handful_of_groups_is_rarely_enough():
    """Five groups that all say the same do so by chance in one of sixteen cases."""
    found = estimate(one_training(1, 1e-6, 0.52), one_training(0, 0.0), groups=5)
    assert float(found.p) == pytest.approx(2 / 2**5)


def test_what_the_choice_of_images_does_to_each_training_is_not_counted_twice():
    """Trainings that differ by images alone: between them lies just that, and the images' variance holds it already."""
    image = torch.tensor(0.01**2)
    once = combine(torch.tensor(0.0), image, [Noise(1, image, image)] * 2, torch.tensor(50.0))
    noise = Noise(3, between=image, by_images=image)
    found = combine(torch.tensor(0.0).double(), image.double(), [noise] * 2, torch.tensor(50.0).double())
    assert float(found.high) == pytest.approx(float(once.high), rel=0.2)
    more = Noise(3, between=3 * image, by_images=image)
    assert float(
        combine(torch.tensor(0.0).double(), image.double(), [more] * 2, torch.tensor(50.0)).high
    ) > 1.5 * float(once.high)


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_how_trainings_differ_by_images_is_half_the_variance_of_their_differences(trainings):
    """Of independent trainings Var(a − b) = 2 I, whatever both share; in the mean over pairs, and G / (G − 1) times."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(50, trainings, generator=generator).double() + 9 * torch.randn(50, 1, generator=generator)
    pairs = [(a, b) for a in range(trainings) for b in range(a)]
    half = sum(float((drawn[:, a] - drawn[:, b]).var()) / 2 for a, b in pairs) / len(pairs)
    found = noise_of(Side(drawn[0], drawn), torch.tensor(5.0).double())
    assert float(found.by_images) == pytest.approx(half * 5 / 4)


def test_one_training_beside_several_is_taken_to_vary_as_they_do():
    several, one = (0.50, 0.52, 0.56), 0.60
    found = estimate(alike(one), alike(*several), groups=1e9)
    spread = stats.tstd(several) * math.sqrt(1 + 1 / 3)
    assert float(found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, 2) * spread)


def test_a_single_group_has_no_interval():
    found = estimate(one_training(1, 0.0, 0.52), one_training(0, 0.0), groups=1)
    assert float(found.value) == pytest.approx(0.02)
    assert found.low.isnan() and found.high.isnan() and found.p.isnan()


def test_groups_of_unequal_size_weigh_as_fewer():
    assert float(effective_groups(torch.tensor([1, 1, 1, 1]))) == 4
    assert float(effective_groups(torch.tensor([34, 1, 1]))) < 1.2
    wide, narrow = (estimate(one_training(1, 0.01), groups=g) for g in (3, 50))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert effective_groups(torch.zeros(3)).isnan()


def test_many_classes_in_few_images_each_do_not_make_the_images_few():
    assert float(groups_of_means(torch.eye(30))) == 15  # thirty classes, each true in an image of its own
    assert float(groups_of_means(torch.ones(30, 4))) == 30
    assert float(groups_of_means(torch.tensor([[4.0, 1], [1, 1], [1, 1]]))) == pytest.approx((2 + 3) / 2)


def test_intervals_stay_where_the_quantity_lives():
    found = estimate(alike(1.0, 0.33), groups=50)
    assert (float(found.low), float(found.high)) == (0.0, 1.0)
    found = estimate(alike(1.0, 0.2), alike(0.1, 0.9), groups=50)
    assert (float(found.low), float(found.high)) == (-1.0, 1.0)


def test_samples_that_could_not_be_measured_are_left_out():
    side = one_training(1, 0.01)
    with_gaps = Side(side.values, torch.cat([side.replicates, torch.full((50, 1), torch.nan)]))
    assert float(estimate(with_gaps, groups=9).high) == pytest.approx(float(estimate(side, groups=9).high))
    lost = Side(torch.tensor([torch.nan]), torch.full((9, 1), torch.nan))
    assert estimate(lost, groups=9).p.isnan()


def test_rounding_is_no_difference():
    found = estimate(alike(0.1 + 0.2), alike(0.3), groups=9)
    assert float(found.p) == 1


def test_holm_against_its_definition():
    p = torch.tensor([0.012, 0.4, 0.001, math.nan, 0.03], dtype=torch.float64)
    assert holm(p).tolist() == pytest.approx([0.036, 0.4, 0.004, math.nan, 0.06], nan_ok=True)
    assert holm(torch.tensor([0.012, 0.010, 0.011])).tolist() == pytest.approx([0.03] * 3)
    assert holm(torch.tensor([math.nan])).isnan().all()


def test_equal_methods_are_told_apart_in_a_twentieth_of_cases_at_most():
    """The quick part of ``benchmarks.coverage``: two trainings of each, where the chance in training rules."""
    found = coverage(World((2, 2), 20, True, "large"), 400)
    assert 0.93 - 0.02 <= found["held"] <= 0.97 + 0.02  # two standard deviations of a share of 400
    assert found["called"] <= 0.05 + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("trainings", TRAININGS)
def test_intervals_hold_the_truth_as_often_as_they_say(trainings, images, noise, grouped):
    found = coverage(World(trainings, images, grouped, noise), 1000)
    assert found["held"] >= 0.93 - 0.016  # two standard deviations of a share of 1000
    assert found["held"] <= 0.97 + 0.011 + 0.01 * (min(trainings) < 5)  # wide where trainings tell little of themselves
    assert found["called"] <= 0.05 + 0.02  # of 500
