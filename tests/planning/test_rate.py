"""``crispseg plan --range-test``: the loss at rising rates, the rate that follows, and when it is not asked for."""

import itertools

import pytest
import torch
from safetensors.torch import save_file

from crispseg import config, planning
from crispseg.cli import main
from crispseg.data.scenes import write_scenes
from crispseg.planning import plan
from crispseg.planning.rate import rate_of
from crispseg.training import range_test

SMALL = {
    "data": {"crop": [32, 32]},
    "model": {"encoder": "test_resnet", "decoder": "fcn", "decoder_channels": 8, "pretrained": False},
    "training": {"accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("rate")
    write_scenes(root, {"train": 12, "val": 2}, height=48, width=64)
    return root


@pytest.fixture(scope="module")
def made(root):
    return plan(root, given=SMALL)


def test_the_rate_rises_by_one_factor_and_the_loss_is_that_of_a_training(made):
    config_ = config.from_dict(made.tree())
    curve = range_test(config_, steps=12, low=1e-4, high=1e-1)
    rates, losses = zip(*curve)
    assert rates[0] == pytest.approx(1e-4) and rates[-1] == pytest.approx(1e-1)
    factors = [b / a for a, b in itertools.pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * 11)
    assert losses[-1] < losses[0]  # it learns
    assert range_test(config_, steps=12, low=1e-4, high=1e-1) == curve
    still = range_test(config_, steps=12, low=1e-12, high=1e-11)
    assert still[0][1] == pytest.approx(losses[0]) and min(loss for _, loss in still) > losses[-1]


def test_it_ends_where_training_breaks(made):
    curve = range_test(config.from_dict(made.tree()), steps=30, low=1e-2, high=1e6)
    assert len(curve) < 30 and all(loss == loss for _, loss in curve)


def test_a_training_that_starts_from_a_network_is_tested_from_there(made, tmp_path):
    from crispseg.runs import make_model

    weights = make_model(config.from_dict(made.tree()), len(made.facts.classes), pretrained=False).state_dict()
    weights["decoder.head.bias"] = torch.full_like(weights["decoder.head.bias"], 0).index_fill(0, torch.tensor(0), 50.0)
    save_file(weights, tmp_path / "w.safetensors")
    tree = made.tree()
    tree["model"] = {**tree["model"], "start": str(tmp_path / "w.safetensors")}
    assert range_test(config.from_dict(tree), steps=1)[0][1] > 10  # sure of class 0


def bowl(bottom):
    """A loss that falls by 2 in three decades, is flat for one around ``bottom``, and rises."""
    curve = []
    for i in range(80):
        rate = 10 ** (i / 16 - 5)
        away = max(0.0, abs(torch.log10(torch.tensor(rate / bottom)).item()) - 0.5)
        curve.append((rate, 1 + away))
    return curve


@pytest.mark.parametrize("bottom", [1e-3, 3e-3, 1e-2])
def test_the_rate_lies_below_the_middle_of_the_flat_bottom(bottom):
    assert rate_of(bowl(bottom)) == pytest.approx(0.4 * bottom, rel=0.15)


def test_nothing_learned_is_no_rate():
    assert rate_of([(10 ** (i / 16 - 5), 1.0) for i in range(80)]) is None
    assert rate_of(bowl(1e-3)[:8]) is None


def test_the_plan_takes_the_rate_of_the_test_unless_one_is_given(root, made, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(planning, "rehearse", lambda _: made.rehearsal)
    monkeypatch.setattr(planning, "range_test", lambda c, steps: seen.append(c.training.lr) or bowl(5e-3))
    assert main(["plan", str(root), "--range-test", "--out", str(tmp_path / "p.yaml")]) == 0
    text = (tmp_path / "p.yaml").read_text()
    assert config.read(tmp_path / "p.yaml").training.lr == rate_of(bowl(5e-3))
    assert "# by a range test; 0.004 would be as tuned on scenes" in text
    given = {**SMALL, "training": {"lr": 0.5}}
    assert plan(root, given=given, ranged=True).tree()["training"]["lr"] == 0.5 and len(seen) == 1
    monkeypatch.setattr(planning, "range_test", lambda c, steps: [(1e-3, 1.0)] * 60)
    said = plan(root, given=SMALL, ranged=True).text()
    assert "the range test learned nothing" in said and "crispseg plan --range-test tries it" in made.text()
