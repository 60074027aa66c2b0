"""The table of docs/reliability.md is filled by what its commands did."""

import re
import sys

import pytest

from docs import fill_reliability

PAGE = """# Promises
| promise | command | last result |
|---|---|---|
| **All** | | |
| Yes | `exit 0` | not run yet |
| No | `test -f there && exit 7` | passed 2020-01-01 at abc in 1 s |
| Never | no test yet | |
after
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "there").write_text("")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["x", "--page", f"{tmp_path}/page.md", "--root", str(tmp_path), *words])
        fill_reliability.main()

    run.text = lambda: (tmp_path / "page.md").read_text()
    return run


def test_a_row_says_whether_its_command_passed_when_and_nothing_else_changes(page, capfd):
    with pytest.raises(SystemExit) as stop:
        page()
    assert stop.value.code == 1
    told = r"\d{4}-\d\d-\d\d at \S* in 0 s \|$"
    lines, before = page.text().splitlines(), PAGE.splitlines()
    assert re.match(r"\| Yes \| `exit 0` \| passed " + told, lines[4])
    assert re.match(r"\| No \| `test -f there && exit 7` \| \*\*failed\*\* \(7\) " + told, lines[5])
    assert lines[:4] + lines[6:] == before[:4] + before[6:]


def test_rows_are_chosen(page, capsys):
    page("--missing", "--list")
    assert capsys.readouterr().out == "exit 0\n"
    page("--only", "Yes")
    assert "| Yes | `exit 0` | passed" in page.text() and "2020-01-01" in page.text()
    with pytest.raises(SystemExit) as stop:
        page("--missing")
    assert stop.value.code == 2


def test_every_row_of_the_page_is_one(repository):
    text = (repository / "docs" / "reliability.md").read_text()
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and "`python -m pytest tests" in line and " -m " in line
    ]
    assert len(rows) > 10 and all(fill_reliability.ROW.fullmatch(row) for row in rows)
