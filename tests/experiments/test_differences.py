"""Comparisons become tables and are kept; parts are pooled, and the pooled interval covers what it says."""

import json
import sys

import pytest
import torch
from scipy import stats

from crispseg.evaluation import Side, estimate
from crispseg.evaluation.intervals import noise_of
from experiments import differences, kept


def comparison(value, low, high, sides, commit="c0ffee1"):
    found = {"difference": value, "low": low, "high": high, "verdict": "-"}
    return {
        "baseline": next(iter(sides)),
        "differences": {name: dict.fromkeys(differences.METRICS.values(), found) for name in list(sides)[1:]},
        "contenders": {name: {"trainings": number} for name, number in sides.items()},
        "caveats": ["One throw of the dice."],
        "bootstrap": {"images": 233, "groups": 55},
        "environment": {"commit": commit, "machine": {"gpu": None, "processor": "a CPU"}},
    }


def made(monkeypatch, tmp_path, *trees):
    page, files = tmp_path / "page.md", []
    page.write_text("<!-- table compare-x -->\n<!-- /table -->\n")
    for i, tree in enumerate(trees):
        files.append(tmp_path / f"{i}.json")
        files[-1].write_text(json.dumps(tree))
    words = ["x", *files, "--page", page, "--results", tmp_path / "results"]
    monkeypatch.setattr(sys, "argv", ["differences", *map(str, words)])
    differences.main()
    return page.read_text()


def test_a_comparison_is_a_table_and_is_kept(tmp_path, monkeypatch):
    page = made(monkeypatch, tmp_path, comparison(0.0141, -0.002, 0.03, {"none": 2, "sdn": 1}))
    assert "|  | sdn − none |" in page
    assert "| mIoU | +1.4 [−0.2, +3.0] |" in page
    assert "on 233 images in 55 groups; trainings: none 2, sdn 1. One throw of the dice." in page
    assert "`crispseg compare` at c0ffee1 on a CPU." in page
    assert kept.read(tmp_path / "results", "compare")["x"]["baseline"] == "none"


def test_what_it_costs_stands_below_the_gain(tmp_path, monkeypatch):
    tree = comparison(0.01, 0, 0.02, {"none": 2, "sdn": 2})
    of = {
        "none": {"parameters": 3250507, "flops": 1163449344, "latency_ms": 42.5},
        "sdn": {"parameters": 3297505, "flops": 2212549632, "latency_ms": 72.3},
    }
    page = made(monkeypatch, tmp_path, tree | {"costs": {"at": "One image of 240×180 on a CPU", "of": of}})
    for row in ("| M parameters | 3.25 → 3.30 |", "| GFLOPs | 1.16 → 2.21 |"):
        assert row in page
    assert "Operations: one image of 240×180." in page


def test_parts_are_pooled_by_their_trainings(tmp_path, monkeypatch):
    two = comparison(0.01, -0.02, 0.03, {"none": 2, "sdn": 2})
    three = comparison(0.02, 0.01, 0.04, {"none": 3, "sdn": 3}, "beef")
    page = made(monkeypatch, tmp_path, two, three)
    assert "| mIoU | +1.6 [−0.2, +3.6] |" in page
    assert "5 trainings of each, compared in parts of 2 and 3" in page
    assert "`crispseg compare` at c0ffee1 on a CPU, beef on a CPU." in page
    assert kept.read(tmp_path / "results", "compare") == {"x": two, "x-2": three}
    made(monkeypatch, tmp_path, two)
    assert list(kept.read(tmp_path / "results", "compare")) == ["x"]  # a part of before is not one of now


@pytest.mark.parametrize("sides", [{"none": 2, "sdn": 3}, {"none": 1, "sdn": 1}, {"none": 2, "conv": 2}])
def test_parts_that_do_not_fit_are_refused(tmp_path, monkeypatch, sides):
    with pytest.raises(SystemExit, match="parts of a comparison need"):
        made(monkeypatch, tmp_path, comparison(0, 0, 0, {"none": 2, "sdn": 2}), comparison(0, 0, 0, sides))
    assert not kept.read(tmp_path / "results", "compare")


def test_an_older_file_is_called_one(tmp_path, monkeypatch):
    tree = comparison(0.01, 0, 0.02, {"none": 2, "sdn": 2})
    assert differences.OLDER in made(monkeypatch, tmp_path, tree)
    assert differences.OLDER in made(monkeypatch, tmp_path, tree, tree)
    assert differences.OLDER not in made(monkeypatch, tmp_path, tree | {"groups_weigh_as": 40.0})


def part(sides, groups, counted):
    """What ``compare.json`` has of two sides by one metric; without ``counted`` as an older file has it."""
    of = estimate(sides[1], sides[0], groups=groups)
    contenders = {}
    for name, side in zip(("none", "sdn"), sides):
        own = {"by_images": float(noise_of(side, torch.tensor(groups)).by_images)} if counted else {}
        contenders[name] = {
            "trainings": len(side.values),
            "metrics": {"miou": {"trainings": side.values.tolist(), **own}},
        }
    row = {"difference": float(of.value), "low": float(of.low), "high": float(of.high)}
    extra = {"groups_weigh_as": groups} if counted else {}
    return {
        "baseline": "none",
        "contenders": contenders,
        "differences": {"sdn": {"miou": {**row, "image_variance": float(of.image_variance)}}},
        **extra,
    }


def test_parts_with_counts_make_the_interval_of_all_trainings():
    """Images that all say the same: what is left is Student's interval of the five trainings of each."""
    values = torch.tensor([[0.50, 0.53, 0.51, 0.49, 0.52], [0.55, 0.54, 0.58, 0.56, 0.52]], dtype=torch.float64)
    cut = (slice(0, 2), slice(2, 5))
    sides = [[Side(v[trainings], v[trainings].expand(50, -1)) for v in values] for trainings in cut]
    parts = [part(two, 1e9, counted) for two, counted in zip(sides, (False, True))]
    found = differences.pooled(parts, "sdn", "miou")
    test = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval()  # the wider one
    assert found["difference"] == pytest.approx(0.04)
    assert found["low"] == pytest.approx(test.low)
    assert found["high"] == pytest.approx(test.high)


def test_a_pooled_interval_covers_the_truth_as_often_as_it_says():
    """Two sides without a difference, of five trainings each, in parts of two and three; the first has no counts."""
    generator, images, covered = torch.Generator().manual_seed(0), 40, 0

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    for _ in range(300):
        own = 0.01 * normal(2, 1, images) + 0.003 * normal(2, 5, 1) + 0.01 * normal(2, 5, images)
        drawn = own[..., torch.randint(images, (100, images), generator=generator)].mean(-1)  # (2, 5, 100)
        parts = []
        for trainings, counted in ((slice(0, 2), False), (slice(2, 5), True)):
            two = [Side(v[trainings].mean(-1), d[trainings].T) for v, d in zip(own, drawn)]
            parts.append(part(two, float(images), counted))
        found = differences.pooled(parts, "sdn", "miou")
        covered += found["low"] <= 0 <= found["high"]
    assert 0.95 - 0.025 <= covered / 300 <= 0.95 + 0.035  # two standard deviations of a share of 300, a little wide
