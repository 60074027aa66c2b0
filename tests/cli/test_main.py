"""The command itself: help, version, unknown commands, exit codes, tracebacks only with --debug."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import crispseg
from crispseg import config, typed
from crispseg.cli import COMMANDS, main, train
from crispseg.cli._config import SPELLED
from crispseg.config import Config, DataConfig, TrainingConfig


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_no_command_is_misuse(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"crispseg {crispseg.__version__}\n"


def test_unknown_command_offers_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"crispseg {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_unknown_flag_is_misuse_in_every_command(name, capsys):
    assert main([name, "--no-such-flag-anywhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("crispseg: error: ")
    assert error.count("\n") == 1


def test_a_full_disk_is_a_failure_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("crispseg.cli._dispatch", lambda _: (_ for _ in ()).throw(OSError(28, "cannot write x: full")))
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "crispseg: error: [Errno 28] cannot write x: full\n"


def test_a_bug_says_so_and_debug_shows_where(monkeypatch, capsys):
    monkeypatch.setattr("crispseg.cli._dispatch", lambda _: 1 // 0)
    assert main(["train"]) == 1
    assert "this is a bug in crispseg" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["train", "--debug"])


LIGHT = ("torch", "torchvision", "lightning", "matplotlib", "timm", "numpy", "rich")


def modules_after(words):
    """The heavy modules that a command has imported, in a process of its own, and its exit code."""
    code = (
        "import sys\nfrom crispseg.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"print('', code, *(name for name in {LIGHT!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    code, *heavy = done.stderr.splitlines()[-1].split()
    return int(code), heavy


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["trian"], 2),
        *(([name, "--help"], 0) for name in COMMANDS),
        *(([name, "--no-such-flag"], 2) for name in COMMANDS),
        (["train", "--print_config", "--training.epochs", "3"], 0),
        (["train", "--data.root", "x", "--out", "y", "--training.lr", "fast"], 2),
        (["evaluate", "--pred", "x", "--label", "y", "--window", "3", "3"], 2),
        (["compare", "--out", "x"], 2),
    ],
    ids=str,
)
def test_help_version_and_misuse_import_nothing_heavy(words, code):
    """What takes time is counted, not timed: importing torch, lightning and matplotlib took 6 s."""
    assert modules_after(words) == (code, [])


def test_importing_the_configuration_imports_no_torch():
    code = "import sys, crispseg.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_printed_config_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--training.epochs", "3", "--data.crop", "40", "50"]
    assert main(["train", "--print_config", *flags]) == 0
    text = capsys.readouterr().out
    assert "root: null  # --data.root ROOT" in text
    (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "--print_config", "--config", "c.yaml", "--data.root", "here"]) == 0
    (tmp_path / "d.yaml").write_text(capsys.readouterr().out)
    assert config.read("d.yaml") == Config(
        data=DataConfig(root="here", crop=(40, 50)), training=TrainingConfig(epochs=3)
    )
    assert main(["train", "--config", "c.yaml", "--out", "o"]) == 2
    assert "give --data.root ROOT" in capsys.readouterr().err


def test_help_is_in_groups_with_defaults_and_what_is_used_first_comes_first(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    heads = [line for line in out.splitlines() if line.endswith(":") and line in GROUPS]
    assert heads == GROUPS
    first = out[out.index("used first:") : out.index("\ndata:")]
    assert all(flag in first for flag in ("--config", "--data.root", "--out", "--resume", "--training.epochs"))
    assert "<class" not in out and "type:" not in out and "(default: 360 480)" in " ".join(out.split())
    missing = [key for key in typed.leaves(Config) if f"{SPELLED.get(key, f'--{key}')} " not in out]
    assert missing == []
    for flag in train.flags():
        assert len(flag.help) > 5, flag.name


GROUPS = ["used first:", "data:", "model:", "training:", "output:"]


def test_help_of_compare_names_its_own_flags(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    out = capsys.readouterr().out
    assert "--model PATH.py:FACTORY" in out and "--config FILE" in out and "configuration file" not in out


ESCAPE = "\x1b]0;title\x07\x1b[31mred\u202e"


def test_names_cannot_steer_the_terminal(tmp_path, capsys, monkeypatch):
    """Escape sequences in names of files and classes are written out, in errors, in lines and in the doctor's table."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / kind / split / f"{kind[0]}{ESCAPE}.png")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["[dashed]\x1b[31m", "[/b] x"]}))
    assert main(["doctor", "."]) == 1
    assert main([ESCAPE]) == 2
    assert main(["doctor", ESCAPE]) == 1
    assert main(["evaluate", "--pred", ESCAPE, "--label", ESCAPE]) == 2
    both = capsys.readouterr()
    assert r"[dashed]\x1b[31m" in both.out and "[/b] x" in both.out and r"\x1b]0;title" in both.out
    assert both.err.count(r"\x1b]0;title") == 3
    assert not {"\x1b", "\x07", "\u202e"}.intersection(both.out + both.err)


def test_a_file_name_that_is_no_utf_8_is_named_and_the_rest_is_said(tmp_path):
    """Old zip archives hold such names; a strict stream, as every UTF-8 locale has it, cannot write their bytes."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / kind / split / "a.png")
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"]}')
    odd = os.path.join(os.fsencode(tmp_path), b"images", b"val", b"caf\xe9.png")
    with open(odd, "wb") as file:
        file.write((tmp_path / "images" / "val" / "a.png").read_bytes())
    words = [sys.executable, "-m", "crispseg", "doctor", str(tmp_path), "--workers", "0"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 1 and "bug" not in done.stderr
    assert r"caf\xe9.png" in done.stdout and " errors, 0 warnings" in done.stdout
