"""A training step beside other processes: the command's own choice of threads against what a user could set by hand.

    python -m benchmarks.busy           # writes benchmarks/results/busy.json; some 8 minutes, nothing else may run
    python -m benchmarks.busy --table   # writes the table in docs/reliability.md, from the results

Each way runs in a process of its own, round after round, beside 0, 1 and 3 processes that only compute. ``later``: it
starts on a free machine, and the others begin once the training is under way.

Not here: how the command chooses (``crispseg.machine``), the steps (``busy_step``).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.busy_step import READY
from benchmarks.measure import RESULTS, save, spread
from benchmarks.operator import busy
from benchmarks.operator_page import read, table
from experiments.table import replace_table

PAGE = RESULTS.parents[1] / "docs" / "reliability.md"
WAYS: dict[str, dict[str, str]] = {
    "command": {},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, PASSIVE": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}
LATER = ("command", "two threads, PASSIVE")
"""Those that are asked what a machine costs that gets busy once they run."""
BESIDE = (0, 1, 3)
NECKS = ("none", "sdn")


def measure(way: str, neck: str, beside: int, later: bool, seconds: float) -> dict[str, Any]:
    """The steps of one process: milliseconds of each, and on how many threads."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    arguments = [sys.executable, "-m", "benchmarks.busy_step", neck, str(seconds)]
    with busy(0 if later else beside):
        process = subprocess.Popen(
            [*arguments, "--choose"] if way == "command" else arguments,
            env=plain | WAYS[way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        with busy(beside if later else 0):
            out, _ = process.communicate("go\n")
    result: dict[str, Any] = json.loads(out)
    return result


def page(rows: list[dict[str, Any]], stamp: dict[str, Any]) -> str:
    """The table: a line a way, a column a number of busy processes, milliseconds of a step for each neck."""
    cells = {(row["way"], row["later"], row["beside"], row["neck"]): row for row in rows}
    beside = sorted({row["beside"] for row in rows})
    necks = list(dict.fromkeys(row["neck"] for row in rows))
    lines = []
    for way, later in dict.fromkeys((row["way"], row["later"]) for row in rows):
        line = [f"{way}, busy later" if later else way]
        for count in beside:
            found = [cells[way, later, count, neck] for neck in necks if (way, later, count, neck) in cells]
            line.append(" / ".join(f"{row['step_ms']:.0f}" for row in found) or "–")
        lines.append(line)
    foot = (
        f"Median ms of a training step ({' / '.join(necks)}) of {spread(row['calls'] for row in rows)} steps, "
        f"EfficientNet-Lite0 + FPN, batch 4, 96×128. {stamp['processor']}, {stamp['cores']} cores, "
        f"torch {stamp['torch']}, commit {stamp['commit']}."
    )
    return "\n".join([*table(["", *(f"beside {count}" for count in beside)], lines), "", foot])


def main() -> None:
    """Measure every way in turns, and save a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="timing a process")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        replace_table(PAGE, "busy", page(*read("busy")))
        return
    cases = [(way, beside, False) for way in WAYS for beside in BESIDE]
    cases += [(way, beside, True) for way in LATER for beside in BESIDE if beside]
    found: dict[tuple[str, str, int, bool], dict[str, list[Any]]] = {}
    for _ in range(options.rounds):
        for neck in NECKS:
            for way, beside, later in cases:
                result = measure(way, neck, beside, later, options.seconds)
                row = found.setdefault((neck, way, beside, later), {"ms": [], "threads": []})
                row["ms"] += result["ms"]
                row["threads"].append(result["threads"])
    rows = [
        {
            "neck": neck,
            "way": way,
            "beside": beside,
            "later": later,
            "step_ms": statistics.median(row["ms"]),
            "calls": len(row["ms"]),
            "threads": sorted(set(row["threads"])),
        }
        for (neck, way, beside, later), row in found.items()
    ]
    save("busy", rows)


if __name__ == "__main__":
    main()
