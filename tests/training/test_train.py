"""Training through the command: the run folder, a resumed run equal to the bit, all ways to ask wrongly."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from crispseg import CrispsegError, UsageError, manifest
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.runs import load_run
from crispseg.training import loop, train

SMALL = [
    "--data.crop", "[32,32]", "--data.workers", "0", "--model.pretrained", "false", "--model.decoder_channels", "16",
    "--training.batch_size", "4", "--training.epochs", "2", "--training.checkpoint_every", "2",
    "--training.accelerator", "cpu",
]  # fmt: skip


def command(scenes, out, *more):
    return ["train", "--data.root", str(scenes), "--out", str(out), *SMALL, *more]


def small(scenes, **training):
    settings = {"batch_size": 4, "epochs": 2, "checkpoint_every": 2, "accelerator": "cpu", **training}
    return Config(
        data=DataConfig(root=str(scenes), crop=(32, 32), workers=0),
        model=ModelConfig(pretrained=False, decoder_channels=16, place="head"),
        training=TrainingConfig(**settings),
    )


@pytest.fixture(scope="module")
def whole_run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(scenes, out, "--model.place", "head")) == 0
    return out


def test_the_run_folder_holds_what_a_result_depends_on(whole_run):
    names = {str(path.relative_to(whole_run)) for path in whole_run.rglob("*") if path.is_file()}
    expected = {"config.yaml", "environment.json", "classes.json", "log.csv", "model.safetensors", "metrics.json"}
    expected |= {"data.json", "manifest.json"}
    assert expected | {"checkpoints/last.pt", "checkpoints/best.pt"} <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    config = yaml.safe_load((whole_run / "config.yaml").read_text())
    assert config["model"]["neck_options"]["similarity"] == "one"  # every default is spelled out
    environment = json.loads((whole_run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert environment["commit"]
    metrics = json.loads((whole_run / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert 0 <= metrics["val"]["miou"] <= 1
    with open(whole_run / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6]
    assert rows[1]["val_miou"] and not rows[0]["val_miou"]


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(scenes, whole_run, tmp_path, stop, monkeypatch):
    """Interrupted in step ``stop``, after that step and before its checkpoint."""
    out = tmp_path / "cut"
    real_step, count = loop._step, 0

    def step(*arguments):
        nonlocal count
        count += 1
        if count > stop:
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(loop, "_step", step)
    assert main(command(scenes, out, "--model.place", "head")) == 130
    assert not (out / "model.safetensors").exists()
    monkeypatch.setattr(loop, "_step", real_step)
    assert main(["train", "--resume", str(out)]) == 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole_run / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    last_ours, last_theirs = (torch.load(p / "checkpoints" / "last.pt", weights_only=True) for p in (out, whole_run))
    assert _same(last_ours["optimizer"], last_theirs["optimizer"])
    assert (out / "log.csv").read_text() == (whole_run / "log.csv").read_text()


STARTED = 4  # files that a run writes at its start: environment, data, classes, config


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_run_killed_between_two_files_of_a_checkpoint_goes_on(scenes, whole_run, tmp_path, cut, monkeypatch):
    out, real_write, count = tmp_path / "cut", manifest.write_bytes, 0

    def write(*arguments):
        nonlocal count
        count += 1
        if count > STARTED + cut:
            raise KeyboardInterrupt
        real_write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_bytes", write)
        assert main(command(scenes, out, "--model.place", "head")) == 130
    assert main(["train", "--resume", str(out)]) == 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole_run / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_a_killed_process_goes_on(scenes, whole_run, tmp_path):
    out = tmp_path / "killed"
    words = [sys.executable, "-m", "crispseg", *command(scenes, out, "--model.place", "head")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment)
    while not (out / "checkpoints" / "last.pt").exists():
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["train", "--resume", str(out)]) == 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole_run / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_finished_run_can_be_resumed_and_stays_what_it_is(whole_run):
    before = (whole_run / "model.safetensors").read_bytes()
    assert main(["train", "--resume", str(whole_run)]) == 0
    assert (whole_run / "model.safetensors").read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_starts_again(scenes, whole_run, tmp_path, monkeypatch):
    out = tmp_path / "early"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command(scenes, out, "--model.place", "head")) == 130
    assert main(["train", "--resume", str(out)]) == 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole_run / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_it_learns(scenes, tmp_path):
    """Twelve scenes, unaugmented, from ImageNet weights: it learns them by heart."""
    data = DataConfig(root=str(scenes), crop=(48, 64), scale=(1, 1), flip=0, jitter=0, workers=0)
    training = TrainingConfig(
        batch_size=4, epochs=30, lr=3e-3, encoder_lr=1.0, validate_every=30, checkpoint_every=15, accelerator="cpu"
    )
    model = ModelConfig(decoder_channels=32, place="head")
    train(Config(data=data, model=model, training=training), tmp_path / "run")
    with open(tmp_path / "run" / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.3 * losses[0]


def test_with_and_without_neck_start_from_the_same_weights(scenes, tmp_path, monkeypatch):
    """The first loss is that of the same network: the seed gives everything but the neck the same weights."""
    first = {}
    for neck in ("none", "sdn"):
        losses = []
        real = loop._step
        monkeypatch.setattr(loop, "_step", lambda *a: losses.append(real(*a)) or losses[-1])  # noqa: B023
        config = small(scenes, epochs=1)
        model = ModelConfig(pretrained=False, decoder_channels=16, place="encoder", neck=neck)
        train(Config(data=config.data, model=model, training=config.training), tmp_path / neck)
        monkeypatch.setattr(loop, "_step", real)
        first[neck] = losses[0][0].item()
    assert first["none"] == first["sdn"]


@pytest.mark.parametrize("neck_lr", [0.0, 1.0])
@pytest.mark.parametrize(("place", "zero"), [("encoder", "fusion.mix.weight"), ("head", "sdn.body.head.weight")])
def test_neck_lr_is_the_necks_alone(scenes, tmp_path, place, zero, neck_lr):
    """At rate 0 the neck stays as it starts: what is zero then stays zero."""
    config = small(scenes, epochs=1, neck_lr=neck_lr, ema=0.0)
    model = ModelConfig(pretrained=False, decoder_channels=16, place=place)
    train(Config(data=config.data, model=model, training=config.training), tmp_path / "run")
    weights = load_file(tmp_path / "run" / "model.safetensors")
    moved = [bool(value.any()) for key, value in weights.items() if key.endswith(zero)]
    assert moved and all(value == (neck_lr > 0) for value in moved)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Criterion, "__call__", lambda self, logits, target: logits.sum() * torch.nan)
    with pytest.raises(CrispsegError, match=r"step 0: the loss is nan; samples: train_\d+, train_\d+"):
        train(small(scenes), tmp_path / "run")


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_samples(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Criterion, "__call__", lambda self, logits, target: (logits * 0).abs().sqrt().sum())
    with pytest.raises(CrispsegError, match=r"step 0: the gradient is not finite; samples: train_"):
        train(small(scenes), tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.rot", "x"], "did you mean '--data.root'"),
        (["--model.nek", "x"], "did you mean '--model.neck'"),
        (["--model.encoder", "tf_efficientnet_lite9"], "did you mean 'tf_efficientnet_lite"),
        (["--model.decoder", "fnc"], "did you mean 'fcn'"),
        (["--data.layout", "citiscapes"], "cityscapes"),
        (["--training.precision", "fp16"], "fp16 needs a GPU"),
        (["--training.epochs", "0"], "training.epochs must be at least 1, found 0"),
        (["--training.epochs", "many"], "training.epochs"),
        (["--training.class_weights", "[1,2]"], "expected 6 numbers, one a class, found 2"),
    ],
)
def test_misuse_is_told_with_exit_code_2(scenes, tmp_path, capsys, more, message):
    assert main(command(scenes, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error and error.count("\n") == 1


def test_an_unknown_key_in_a_file_offers_the_nearest(scenes, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(f"data:\n  root: {scenes}\ntraining:\n  epoch: 3\n")
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_not_overwritten(scenes, whole_run, capsys):
    assert main(command(scenes, whole_run)) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_resume_with_another_config_names_the_difference(whole_run, capsys):
    assert main(["train", "--resume", str(whole_run), "--training.lr", "0.5"]) == 2
    assert "training.lr: 0.001 != 0.5" in capsys.readouterr().err


def _other_groups(state):
    state["optimizer"]["param_groups"].pop()


def _other_network(state):
    state["model"].popitem()


def _no_precision(state):
    del state["precision"]


@pytest.mark.parametrize("change", [_other_groups, _other_network, _no_precision])
def test_a_checkpoint_of_another_version_is_named(whole_run, tmp_path, change, capsys):
    out = tmp_path / "older"
    shutil.copytree(whole_run, out)
    last = out / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    change(state)
    torch.save(state, last)
    (out / "manifest.json").unlink()  # a run of that version has none
    before = last.read_bytes()
    assert main(["train", "--resume", str(out)]) == 1
    error = capsys.readouterr().err
    assert f"{last}: does not fit" in error and error.count("\n") == 1
    assert last.read_bytes() == before


def test_resume_of_what_is_no_run(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "is not a run folder: it has no config.yaml" in capsys.readouterr().err


def test_a_run_folder_that_is_not_one(tmp_path, whole_run):
    with pytest.raises(UsageError, match="no such folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(UsageError, match="it has no config.yaml"):
        load_run(tmp_path)


def test_a_bad_file_is_named_and_once_mended_the_same_command_trains(scenes, tmp_path, capsys):
    root = tmp_path / "data"
    for path in scenes.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(scenes)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    bad = root / "images" / "train" / "train_0003.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    words = command(root, tmp_path / "run", "--data.workers", "1", "--training.checkpoint_every", "9")
    assert main(words) == 1
    error = capsys.readouterr().err
    assert str(bad) in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    bad.write_bytes(whole)
    assert main([*words, "--training.epochs", "1"]) == 0


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b
