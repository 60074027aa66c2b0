"""Without a terminal, long work says how far it is: here with a line for every step in the place of 20 seconds."""

import shutil
import sys

import pytest

from crispseg import progress
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.training import train


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("progress") / "run"
    data = DataConfig(root=str(scenes), crop=(32, 32), workers=0)
    model = ModelConfig(pretrained=False, decoder="fcn", decoder_channels=8, neck="none")
    training = TrainingConfig(batch_size=4, epochs=1, accelerator="cpu", class_weights="inverse_sqrt")
    return Config(data=data, model=model, training=training), out


def test_a_training_says_where_it_is(run, at_once, capsys):
    train(*run)
    lines = capsys.readouterr().err.splitlines()
    told = [line.split(" left")[0] for line in lines]
    assert told[0].startswith("counting the pixels of each class: 1 of 12, ")
    assert any(line.startswith("training: 1 of 3, loss ") for line in told)
    assert any(line.startswith("validating: 3 of 4, ") for line in told)


@pytest.mark.parametrize("command", ["predict", "evaluate", "compare"])
def test_commands_say_where_they_are(run, scenes, tmp_path, at_once, capsys, command):
    config, out = run
    if not out.exists():
        train(config, out)
        capsys.readouterr()
    other = shutil.copytree(out, tmp_path / "other")
    words, what = {
        "predict": ([str(scenes / "images" / "val"), "--run", str(out), "--out", str(tmp_path / "o")], "predicting"),
        "evaluate": (["--run", str(out)], "evaluating"),
        "compare": ([f"a={out}", f"b={other}", "--samples", "100", "--out", str(tmp_path / "o")], "a 1/1"),
    }[command]
    main([command, *words])
    assert f"{what}: 3 of 4, " in capsys.readouterr().err


def test_nothing_is_said_of_what_is_short(tmp_path, capsys):
    assert list(progress.track(range(5), "short", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_and_of_a_part_nothing(at_once, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.lines(range(5), "part", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    assert list(progress.track(range(5), "whole", 5)) == [0, 1, 2, 3, 4]
    assert "whole" in capsys.readouterr().err


def test_the_time_left_counts_what_was_done_now():
    """A run that goes on at step 50 has done none of the first 50 in this time."""
    said, clock = [], iter([0.0, 30.0])
    ticker = progress.Ticker("training", 110, start=50, say=said.append, clock=lambda: next(clock))
    ticker.at(60)
    assert said == ["training: 60 of 110, 2 min left"]
