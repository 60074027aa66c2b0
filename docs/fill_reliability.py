"""Run the commands of the table in docs/reliability.md and write what came out into its last column.

    python -m docs.fill_reliability                  # all of them: hours
    python -m docs.fill_reliability --only corruption
    python -m docs.fill_reliability --missing --list

A row is ``| promise | `command` | last result |``. Commands run one after the other from the root of the checkout, with
this Python's own commands (pytest) first on the path; after each the page is written, so a kill loses one row.

Not here: the promises (the page), what CI runs (``.ci/run``).
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import SOURCES, commit
from crispseg.files import write_text

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<promise>[^|]+) \| `(?P<command>[^`|]+)` \| (?P<result>[^|]*) \|$", re.MULTILINE)
NEVER = "not run yet"


def chosen(text: str, only: str | None, missing: bool) -> list[str]:
    """Return the commands of the page's rows that are asked for, in its order."""
    rows = [m for m in ROW.finditer(text) if (only or "") in m[0] and (not missing or m["result"] == NEVER)]
    return [m["command"] for m in rows]


def carry_out(command: str, root: Path) -> str:
    """Run a command and return what is to be written about it: passed or failed, when, which commit, how long."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.monotonic()
    code = subprocess.run(command, shell=True, cwd=root, env={**os.environ, "PATH": path}, check=False).returncode
    seconds = time.monotonic() - start
    took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    word = "passed" if code == 0 else f"**failed** ({code})"
    return f"{word} {now} at {commit(root, (*SOURCES, 'tests'))} in {took}"


def fill(page: Path, commands: list[str], root: Path) -> bool:
    """Run each command and write its result into its row; whether all passed."""
    passed = True
    for command in commands:
        print(command, flush=True)
        result = carry_out(command, root)
        print(result, flush=True)
        passed &= result.startswith("passed")
        write_text(page, written(page.read_text(), command, result))
    return passed


def written(text: str, command: str, result: str) -> str:
    """Return the page with ``result`` in the row of ``command``."""

    def row(m: re.Match[str]) -> str:
        return f"| {m['promise']} | `{command}` | {result} |" if m["command"] == command else m[0]

    return ROW.sub(row, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORD", help="rows that contain it")
    parser.add_argument("--missing", action="store_true", help="rows whose command never ran")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the commands run")
    arguments = parser.parse_args()
    commands = chosen(arguments.page.read_text(), arguments.only, arguments.missing)
    if not commands:
        parser.error("no row is asked for by this")
    if arguments.list:
        print("\n".join(commands))
    elif not fill(arguments.page, commands, arguments.root):
        sys.exit(1)


if __name__ == "__main__":
    main()
