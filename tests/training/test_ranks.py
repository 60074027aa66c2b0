"""A training on several devices is that of one: losses, weights, metrics; it is resumed; only rank 0 writes."""

import csv
import os
import shutil

import pytest
import tiny
import torch
from forked import in_ranks
from tiny import tiny_config, write_set

from crispseg import UsageError
from crispseg.errors import CrispsegError
from crispseg.training import batch_norm, loop, ranks, train

STEP = 0.01  # about the length of a weight's step


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Eight pictures; a network without dropout, which no two ranks drop alike."""
    monkeypatch.setattr(tiny, "NETWORK", tiny.NETWORK.replace("nn.Dropout2d(0.2)", "nn.Identity()"))
    return write_set(tmp_path / "data", train=8)


def run(rank, config, out, resume=False):
    return train(config, out, resume=resume)


def end(out):
    return torch.load(out / "checkpoints" / "last.pt", weights_only=True)


def losses(out):
    with open(out / "log.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def distance(a, b):
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def check_equal(config, tmp_path, size=2, tolerance=1e-3 * STEP):
    """One process and ``size`` ranks: the same losses, weights, average and metrics, up to rounding."""
    one, several = tmp_path / "one", tmp_path / "several"
    alone = train(config, one)
    found = in_ranks(size, run, config, several)
    assert found == [found[0]] * size
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    assert distance(end(one)["model"], end(several)["model"]) < tolerance
    assert distance(end(one)["average"], end(several)["average"]) < tolerance
    assert found[0]["steps"] == alone["steps"]
    assert found[0]["val"]["miou"] == pytest.approx(alone["val"]["miou"], abs=0.01)
    return several


def test_two_ranks_train_what_one_process_trains(root, tmp_path):
    """Batch norm, void that is unequal, class weights, clipping, augmentation, an auxiliary head."""
    data = {"crop": (16, 24), "scale": (0.7, 1.4), "flip": 0.5, "jitter": 0.3}
    config = tiny_config(root, batch_size=4, class_weights=(0.3, 1.0, 3.0), clip=0.5, data=data)
    out = check_equal(config, tmp_path)
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {name.partition(".")[0] for name in names if "tensorboard" in name} == {"tensorboard/events"}
    assert len([name for name in names if "tensorboard" in name]) == 1  # of rank 0


def test_a_loss_that_does_not_add_up_is_that_of_the_whole_batch(root, tmp_path):
    losses_ = {"cross_entropy": 1.0, "dice": 0.5, "lovasz": 0.5}
    check_equal(tiny_config(root, batch_size=4, loss="ohem", losses=losses_), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("options", [{"accumulate": 2}, {"losses": {"focal": 1.0}}, {"ema": 0.5, "batch_size": 4}])
def test_more_options_and_ranks(root, tmp_path, size, options):
    """Batch norm sees a part, so with parts it is left out, that of the neck too."""
    config = tiny_config(root, **{"batch_size": 8, "epochs": 4, **options})
    if "accumulate" in options:
        config = tiny_config(root, model={"factory": f"{root}/tiny.py:Tiny", "neck": "none"}, batch_size=8, **options)
        (root / "tiny.py").write_text(tiny.NETWORK.replace("nn.BatchNorm2d(8)", "nn.GroupNorm(2, 8)"))
    check_equal(config, tmp_path, size)


def _norm(rank, x, weight, bias, dy):
    r = ranks.Ranks(rank, 2)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    own = slice(0, 3) if rank == 0 else slice(3, None)  # unequal shares
    norm = torch.nn.BatchNorm2d(4).double()
    norm.load_state_dict({**norm.state_dict(), "weight": weight, "bias": bias})
    part = x[own].clone().requires_grad_()
    with batch_norm.OverRanks(r):
        y = norm(part)
    y.backward(dy[own])
    r.sum_gradients(norm)
    found = (y, part.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    return [x.detach().tolist() for x in found]


def test_batch_norm_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    x, dy = torch.randn(5, 4, 3, 2).double() * 3 + 100, torch.randn(5, 4, 3, 2).double()
    norm = torch.nn.BatchNorm2d(4).double()
    weight, bias = torch.rand(4).double(), torch.randn(4).double()
    norm.load_state_dict({**norm.state_dict(), "weight": weight, "bias": bias})
    whole = x.clone().requires_grad_()
    y = norm(whole)
    y.backward(dy)
    a, b = ([torch.tensor(x).double() for x in found] for found in in_ranks(2, _norm, x, weight, bias, dy))
    torch.testing.assert_close(torch.cat([a[0], b[0]]), y.detach())
    torch.testing.assert_close(torch.cat([a[1], b[1]]), whole.grad)
    for found in (a, b):
        expected = (norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        torch.testing.assert_close(found[2:], list(expected))


def _cut(rank, config, out, after):
    """Train until the checkpoint of step ``after`` is written."""
    real, steps = loop._step, iter(range(99))
    loop._step = lambda *a: real(*a) if next(steps) < after else _stop()
    try:
        train(config, out)
    except KeyboardInterrupt:
        return "cut"


def _stop():
    raise KeyboardInterrupt


def test_a_resumed_run_of_as_many_ranks_is_bit_identical(root, tmp_path):
    config = tiny_config(root, batch_size=4)
    in_ranks(2, run, config, tmp_path / "whole")
    assert in_ranks(2, _cut, config, tmp_path / "cut", 2) == ["cut", "cut"]
    assert not (tmp_path / "cut" / "metrics.json").exists()
    shutil.copytree(tmp_path / "cut", tmp_path / "alone")
    in_ranks(2, run, config, tmp_path / "cut", True)
    whole, cut = end(tmp_path / "whole"), end(tmp_path / "cut")
    assert all(torch.equal(whole["model"][name], cut["model"][name]) for name in whole["model"])
    assert all(torch.equal(whole["average"][name], cut["average"][name]) for name in whole["average"])
    for name in ("log.csv", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    train(config, tmp_path / "alone", resume=True)  # one process goes on with a run of two
    assert distance(whole["model"], end(tmp_path / "alone")["model"]) < 1e-3 * STEP
    assert "devices: 1" in (tmp_path / "alone" / "config.yaml").read_text()


@pytest.mark.slow
def test_three_ranks_are_resumed_bit_identically(root, tmp_path):
    """Of three numbers the sum depends on the order."""
    config = tiny_config(root, batch_size=6)
    in_ranks(3, run, config, tmp_path / "whole")
    in_ranks(3, _cut, config, tmp_path / "cut", 1)
    in_ranks(3, run, config, tmp_path / "cut", True)
    names = ("model.safetensors", "log.csv")
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes() for name in names)


def test_metrics_are_those_of_one_process_bit_for_bit(root, tmp_path):
    """The weights of both are the same: those of a run that is only validated."""
    config = tiny_config(root, batch_size=4)
    train(config, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    alone = _validated(0, config, tmp_path / "one")
    assert in_ranks(2, _validated, config, tmp_path / "two") == [alone, alone]


def _validated(rank, config, out):
    from crispseg.training import devices, sources
    from crispseg.training.validation import validate

    size = int(os.environ.get("WORLD_SIZE", "1"))
    config = ranks.config_of(config, size)
    fabric = devices.make_fabric(config, ranks=size > 1)
    _, data = sources.data_sets(config.data)
    model = loop.runs.make_model(config, 3)
    model.load_state_dict(end(out)["model"])
    return validate(model, data, fabric, ranks=ranks.Ranks(rank, size))


def test_an_error_of_any_rank_is_told_once_and_by_name(root, tmp_path):
    (root / "labels" / "val" / "1.png").write_bytes(b"no picture")  # rank 1 validates it
    found = in_ranks(2, run, tiny_config(root, batch_size=4), tmp_path / "run", expected=CrispsegError)
    assert found[0][1].startswith("rank 1: ") and "1.png" in found[0][1]
    assert found[1] == ("raised", "rank 1 failed")


def _poisoned(rank, config, out):
    real = loop._step
    loop._step = lambda *a: real(*a) * float("nan")
    train(config, out)


def test_a_loss_that_is_not_finite_names_the_samples_of_all_ranks(root, tmp_path):
    found = in_ranks(2, _poisoned, tiny_config(root, batch_size=4), tmp_path / "run", expected=CrispsegError)
    names = found[0][1].partition("samples: ")[2].split(", ")
    assert len(names) == 4 and "the loss is nan" in found[0][1]
    assert "another rank is gone" in found[1][1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"devices": 3, "batch_size": 4}, "batch_size 4 cannot be split over 3 devices; take a multiple of 3"),
        ({"devices": 2, "batch_size": 4, "accumulate": 3}, "more parts than the 2 images"),
        ({"devices": 2, "compile": True}, "compile true is for one device"),
        ({"devices": 2, "accelerator": "mps"}, "accelerator mps is for one device"),
        ({"timeout": 5.0}, "timeout 5 does not apply: training.devices is 1"),
        ({"devices": 0}, "devices must be at least 1"),
    ],
)
def test_what_cannot_be_split_is_refused(root, options, said):
    with pytest.raises(UsageError, match=said):
        tiny_config(root, **options)


def test_a_rank_needs_all_that_torchrun_says(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, but RANK, LOCAL_RANK, .* are not set"):
        train(tiny_config(root), tmp_path / "run")
    assert not (tmp_path / "run").exists()
