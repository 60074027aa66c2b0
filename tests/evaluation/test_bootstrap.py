"""The bootstrap is paired, resamples groups whole, and holds exact sums."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from crispseg.errors import UsageError
from crispseg.evaluation import group_images, paired_bootstrap
from crispseg.evaluation.bootstrap import CHUNK


def share(counts):
    return {"share": counts["right"].double() / counts["all"].double()}


def side(right):
    right = torch.as_tensor(right)
    return {"right": right, "all": torch.full_like(right, 100)}


def drawn(*sides, group, **options):
    """Replicates of sides of one training each: (samples,) of each."""
    return [one["share"][:, 0] for one in paired_bootstrap([[s] for s in sides], group, share, **options)]


def test_every_replicate_is_the_score_of_some_multiset_of_images():
    (draws,) = drawn(side([0, 1, 2]), group=torch.arange(3), samples=300)
    possible = {(a + b + c) / 300 for a in range(3) for b in range(3) for c in range(3)}
    assert set(draws.tolist()) <= possible
    assert len(set(draws.tolist())) == len(possible)


def test_sides_and_trainings_see_the_same_images():
    right = torch.randint(0, 90, (40,), generator=torch.Generator().manual_seed(0))
    one, other = paired_bootstrap([[side(right)], [side(right + 7), side(right)]], torch.arange(40), share)
    assert (other["share"][:, 0] - one["share"][:, 0]).tolist() == pytest.approx([0.07] * 2000)
    assert torch.equal(other["share"][:, 1], one["share"][:, 0])


def test_images_of_a_group_come_together():
    """Groups, not images, are drawn: no sample holds a part of one; each has as many groups as there are."""
    (draws,) = drawn(side([10, 10, 90, 90]), group=torch.tensor([0, 0, 1, 1]), samples=500)
    assert set(draws.tolist()) == {0.1, 0.5, 0.9}
    assert (draws == 0.5).double().mean() == pytest.approx(0.5, abs=0.1)
    sizes = paired_bootstrap(
        [[side([1, 1, 1, 1, 1])]],
        torch.tensor([0, 0, 0, 0, 1]),
        lambda counts: {"images": counts["right"]},
        samples=200,
    )
    assert set(sizes[0]["images"].flatten().tolist()) == {2, 5, 8}


def test_grouping_neighbours_widens_the_spread():
    right = torch.randint(20, 80, (10,), generator=torch.Generator().manual_seed(1)).repeat_interleave(20)
    apart, together = (
        drawn(side(right), group=group)[0].std() for group in (torch.arange(200), torch.arange(200) // 20)
    )
    assert together > 3 * apart


def test_a_seed_repeats_the_draws():
    first, again, other = (drawn(side(range(50)), group=torch.arange(50), seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "not a regular expression"), ("x", "finds nothing in the image name 'a'")]
)
def test_patterns_that_do_not_fit(pattern, words):
    with pytest.raises(UsageError, match=words):
        group_images(["a", "b"], pattern)


@given(st.data(), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**40), st.integers(1, 2 * CHUNK + 1))
def test_a_replicate_is_the_sum_over_the_groups_that_were_drawn(data, images, most, large, samples):
    """By search: any counts, up to where their sums are no longer exact in float64, any groups, any number of draws."""
    group = torch.tensor(data.draw(st.lists(st.integers(0, most - 1), min_size=images, max_size=images)))
    group = group.unique(return_inverse=True)[1]
    counts = [torch.tensor(data.draw(st.lists(st.integers(0, large), min_size=images, max_size=images))) for _ in "ab"]
    (side,) = paired_bootstrap([[{"n": n} for n in counts]], group, lambda c: c, samples=samples, seed=large)
    assert side["n"].shape == (samples, 2)
    generator, number = torch.Generator().manual_seed(large), int(group.max()) + 1
    for start in range(0, samples, CHUNK):
        picked = torch.randint(number, (min(CHUNK, samples - start), number), generator=generator)
        for found, groups in zip(side["n"][start:], picked.tolist()):
            assert found.tolist() == [sum(int(n[group == g].sum()) for g in groups) for n in counts]
