"""``training.strategy fsdp``: a training of split weights is that of one process, and any number goes on with it."""

import shutil

import pytest
import tiny
import torch
from forked import in_ranks
from test_ranks import STEP, _cut, distance, end, losses, run
from tiny import tiny_config, write_set

from crispseg import UsageError
from crispseg.errors import CrispsegError
from crispseg.training import loop, ranks, shards, train
from crispseg.training.optimisation import Average


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Eight pictures; a network without dropout, which no two ranks drop alike."""
    monkeypatch.setattr(tiny, "NETWORK", tiny.NETWORK.replace("nn.Dropout2d(0.2)", "nn.Identity()"))
    return write_set(tmp_path / "data", train=8)


def fsdp(root, **options):
    return tiny_config(root, **{"batch_size": 4, "devices": 2, "strategy": "fsdp", **options})


def alone(config):
    return ranks.config_of(config, 1)


def check_split(config, tmp_path, size=2):
    """One process and ``size`` ranks with split weights: the same losses, weights, average and metrics."""
    one, several = tmp_path / "one", tmp_path / "several"
    trained = train(alone(config), one)
    found = in_ranks(size, run, config, several)
    assert found == [found[0]] * size
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    a, b = end(one), end(several)
    assert distance(a["model"], b["model"]) < 1e-3 * STEP
    if config.training.ema:
        assert distance(a["average"], b["average"]) < 1e-3 * STEP
    assert found[0]["val"]["miou"] == pytest.approx(trained["val"]["miou"], abs=0.01)
    return one, several


def test_split_weights_train_what_one_process_trains(root, tmp_path):
    """Batch norm, class weights, clipping, an average, an auxiliary head; any command reads the run afterwards."""
    config = fsdp(root, class_weights=(0.3, 1.0, 3.0), clip=0.5)
    one, several = check_split(config, tmp_path)
    a, b = (torch.load(out / "checkpoints" / "best.pt", weights_only=True) for out in (one, several))
    assert a.keys() == b.keys() and a["model"].keys() == b["model"].keys()
    for x, y in zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True):
        assert {name: v.shape for name, v in x.items()} == {name: v.shape for name, v in y.items()}


def test_each_rank_holds_its_share_between_steps(root, tmp_path):
    """Weights, their average, and AdamW's two moments: with two ranks half of each, up to a row."""
    found = in_ranks(2, _held, fsdp(root), tmp_path / "run")
    numbers = sum(x.numel() for x in end(tmp_path / "run")["model"].values() if x.is_floating_point())
    for held in found:
        assert len(held) == 4 and all(0.35 * numbers < count < 0.6 * numbers for count in held), (held, numbers)


def _held(rank, config, out):
    """How many numbers a rank holds after a step, of weights, average, and each moment."""
    real, step, kept, counts = Average.update_parameters, loop._step, {}, []

    def noted(fabric, model, optimizer, *more):
        kept["optimizer"] = optimizer
        return step(fabric, model, optimizer, *more)

    def update(average, model):
        real(average, model)
        moments = [*kept["optimizer"].state.values()]
        counts[:] = [
            sum(shards.own(x).numel() for x in tensors)
            for tensors in (
                model.parameters(),
                average.module.parameters(),
                [state["exp_avg"] for state in moments],
                [state["exp_avg_sq"] for state in moments],
            )
        ]

    loop._step, Average.update_parameters = noted, update
    train(config, out)
    return counts


@pytest.mark.slow
def test_a_split_run_is_resumed_by_as_many_by_one_and_unsplit(root, tmp_path):
    """By as many ranks bit for bit; by others up to rounding."""
    config = fsdp(root)
    in_ranks(2, run, config, tmp_path / "whole")
    assert in_ranks(2, _cut, config, tmp_path / "cut", 2) == ["cut", "cut"]
    shutil.copytree(tmp_path / "cut", tmp_path / "one")
    in_ranks(2, run, config, tmp_path / "cut", True)
    for name in ("log.csv", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    whole = end(tmp_path / "whole")
    train(alone(config), tmp_path / "one", resume=True)
    assert distance(whole["model"], end(tmp_path / "one")["model"]) < 1e-3 * STEP
    assert "strategy: ddp" in (tmp_path / "one" / "config.yaml").read_text()


@pytest.mark.slow
def test_an_unsplit_run_goes_on_split(root, tmp_path):
    config = fsdp(root)
    in_ranks(2, run, config, tmp_path / "whole")
    assert in_ranks(2, _cut, fsdp(root, strategy="ddp"), tmp_path / "cut", 2) == ["cut", "cut"]
    in_ranks(2, run, config, tmp_path / "cut", True)
    assert distance(end(tmp_path / "whole")["model"], end(tmp_path / "cut")["model"]) < 1e-3 * STEP
    assert "strategy: fsdp" in (tmp_path / "cut" / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ohem", "losses": {"cross_entropy": 1.0, "dice": 0.5, "lovasz": 0.5}},
        {"losses": {"focal": 1.0}, "ema": 0.0},
        {"precision": "bf16", "epochs": 1},
    ],
)
def test_more_options(root, tmp_path, options):
    if "precision" in options:
        assert in_ranks(2, run, fsdp(root, **options), tmp_path / "run")[0]["steps"] == 2
    else:
        check_split(fsdp(root, **options), tmp_path)


@pytest.mark.slow
def test_parts_of_a_batch_and_three_ranks(root, tmp_path):
    """Rows that do not divide; without batch norm, which would see a part."""
    model = {"factory": f"{root}/tiny.py:Tiny", "neck": "none"}
    config = fsdp(root, model=model, batch_size=6, devices=3, accumulate=2)
    (root / "tiny.py").write_text(tiny.NETWORK.replace("nn.BatchNorm2d(8)", "nn.GroupNorm(2, 8)"))
    check_split(config, tmp_path, size=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"devices": 1}, "strategy fsdp does not apply: training.devices is 1"),
        ({"precision": "fp16"}, "precision fp16 does not go with strategy fsdp"),
        ({"compile": True}, "compile true is for one device"),
    ],
)
def test_what_does_not_go_with_it_is_refused_when_the_config_is_read(root, options, said):
    with pytest.raises(UsageError, match=said):
        fsdp(root, **options)


def test_a_parameter_without_rows_is_named(root, tmp_path):
    config, code = fsdp(root), tiny.NETWORK.replace("from torch import nn", "import torch\nfrom torch import nn")
    one = "self.gain = nn.Parameter(torch.ones(()))\n        self.auxiliary ="
    (root / "tiny.py").write_text(code.replace("self.auxiliary =", one))
    found = in_ranks(2, run, config, tmp_path / "run", expected=CrispsegError)
    assert "gain" in found[0][1] and "single number" in found[0][1]
    assert not (tmp_path / "run").exists()
