"""Say what is wrong or odd with a data set before hours of training: crispseg doctor ROOT

Exit code 0: nothing that breaks training (there may be warnings). 1: at least one error, which breaks training or makes
its results untrue.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crispseg.data.doctor import Diagnosis, examine
from crispseg.errors import UsageError
from crispseg.files import write_json
from crispseg.progress import track


def add_arguments(parser: Any) -> None:
    """The data set, and where the diagnosis goes."""
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    parser.add_argument("--layout", help="folder, cityscapes, ade20k or voc (default: what it looks like)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it, with every file concerned")
    parser.add_argument("--workers", type=int, help="processes to read with; 0: this one (default: as many as pay)")


def run(arguments: Any) -> int:
    """Examine, print, and write the JSON."""
    if arguments.workers is not None and arguments.workers < 0:
        raise UsageError(f"--workers: expected 0 or more, found {arguments.workers}")
    diagnosis = examine(arguments.root, arguments.layout, workers=arguments.workers, track=_progress)
    if arguments.json:
        write_json(arguments.json, diagnosis.to_json())
    show(diagnosis, Console())
    return 0 if diagnosis.healthy else 1


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print the classes as a table, then the findings, errors first."""
    counts = ", ".join(f"{name} {count}" for name, count in diagnosis.images.items()) or "none"
    console.print(f"{diagnosis.root} (layout: {diagnosis.layout}), images: {counts}", highlight=False, soft_wrap=True)
    if diagnosis.table:
        console.print(_table(diagnosis))
        words = "pixels: share of all that are not void; border: share of a class that is border\n"
        console.print(words, style="dim", highlight=False, soft_wrap=True)
    for finding in diagnosis.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        line = f"[bold {colour}]{finding.severity}[/] [{colour}]{finding.code}[/] {escape(finding.message)}"
        console.print(line, highlight=False, soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in diagnosis.findings)
    warnings = len(diagnosis.findings) - errors
    console.print(
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}",
        style="bold red" if errors else "bold green",
        highlight=False,
    )


def _table(diagnosis: Diagnosis) -> Table:
    table = Table("", "class", box=box.SIMPLE_HEAD)
    for split in diagnosis.images:
        table.add_column(f"{split}\npixels %", justify="right")
    table.add_column("in images %", justify="right")
    table.add_column("border %", justify="right")
    for row in diagnosis.table:
        shares = [f"{100 * row['pixels'][split]:.2f}" for split in diagnosis.images]
        last = f"{100 * row['images']:.0f}", f"{100 * row['border']:.1f}"
        table.add_row(str(row["index"]), escape(row["name"]), *shares, *last)
    return table


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "reading", total)
