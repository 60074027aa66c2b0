"""Help fits the terminal: every command, on a narrow one and on a wide one."""

import pytest

from crispseg.cli import COMMANDS
from crispseg.cli._parser import Parser


def helped(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    module = __import__(f"crispseg.cli.{name.replace('-', '_')}", fromlist=["flags"])
    return Parser(name, module.__doc__, module.flags()).format_help(), module.__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_no_wider_than_the_terminal_and_says_the_same(name, monkeypatch):
    narrow, description = helped(name, 80, monkeypatch)
    wide, _ = helped(name, 160, monkeypatch)
    prose = [line for line in narrow.splitlines() if not line.startswith(("usage:", "  crispseg "))]
    assert max(map(len, prose)) <= 80
    assert narrow.split() == wide.split()
    examples = [line for line in description.splitlines() if line.startswith("  crispseg ")]
    assert all(f"\n{line}\n" in narrow for line in examples)
    assert description.strip() in wide
