"""The command itself: help, version, unknown commands, exit codes, tracebacks only with --debug."""

import pytest

import crispseg
from crispseg.cli import COMMANDS, main


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
