"""Comparisons become tables and are kept; parts are pooled, and the pooled interval covers at least what it says."""

import json
import sys

import pytest
import torch

from crispseg.evaluation import interval, paired_bootstrap
from experiments import differences


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
    assert json.loads((tmp_path / "results" / "compare" / "x.json").read_text())["baseline"] == "none"


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
    kept = [json.loads((tmp_path / "results" / "compare" / name).read_text()) for name in ("x.json", "x-2.json")]
    assert kept == [two, three]


@pytest.mark.parametrize("sides", [{"none": 2, "sdn": 3}, {"none": 1, "sdn": 1}, {"none": 2, "conv": 2}])
def test_parts_that_do_not_fit_are_refused(tmp_path, monkeypatch, sides):
    with pytest.raises(SystemExit, match="parts of a comparison need"):
        made(monkeypatch, tmp_path, comparison(0, 0, 0, {"none": 2, "sdn": 2}), comparison(0, 0, 0, sides))


def test_a_pooled_interval_covers_the_truth_at_least_as_often_as_it_says():
    """Two sides without a difference, of five trainings each, compared in parts of two and three, many times."""
    generator, images = torch.Generator().manual_seed(0), 40

    def side(effects, own):
        return [{"gain": (1e6 * (effect + own)).long(), "one": torch.ones(images).long()} for effect in effects]

    def parts_of(sides):
        draws = paired_bootstrap(sides, torch.arange(images), lambda n: {"mean": n["gain"] / n["one"]}, samples=200)[
            "mean"
        ]
        low, high = interval(draws[1] - draws[0])
        return float(low), float(high)

    covered = 0
    for _ in range(300):
        effects = 0.5 * torch.randn(2, 5, generator=generator)
        own = [torch.zeros(images), torch.randn(images, generator=generator) * images**0.5 * 0.3]
        sides = [side(effect, image) for effect, image in zip(effects, own)]
        parts = []
        for trainings in (slice(0, 2), slice(2, 5)):
            low, high = parts_of([one[trainings] for one in sides])
            number = len(effects[0][trainings])
            parts.append(comparison((low + high) / 2, low, high, {"none": number, "sdn": number}))
        found = differences.pooled(parts, "sdn", "miou")
        covered += found["low"] <= 0 <= found["high"]
    assert covered / 300 >= 0.93  # 0.95 less 1.6 standard deviations of a share of 300
