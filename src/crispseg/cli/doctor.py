"""Say what is wrong or odd with a data set before hours of training:
  crispseg doctor ROOT

Exit code 0: nothing breaks training (there may be warnings). 1: at least one error, which breaks training or makes its
results wrong.
"""

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, whole
from crispseg.errors import printable
from crispseg.progress import track

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from crispseg.data.doctor import Diagnosis


def flags() -> list[Flag]:
    """The data set, and where the diagnosis goes."""
    return [
        Flag(name="root", kind=path, metavar="ROOT", help="folder of the data set"),
        Flag(name="--layout", metavar="NAME", help="folder, cityscapes, ade20k or voc", shown="what it looks like"),
        Flag(name="--json", kind=path, metavar="FILE", help="write all of it, with every file concerned"),
        Flag(
            name="--workers",
            kind=whole(0),
            metavar="N",
            help="processes to read with; 0: this one",
            shown="as many as pay",
        ),
    ]


def run(arguments: Any) -> int:
    """Examine, print, and write the JSON."""
    from rich.console import Console

    from crispseg.data.doctor import examine
    from crispseg.files import write_json

    diagnosis = examine(arguments.root, arguments.layout, workers=arguments.workers, track=_progress)
    if arguments.json:
        write_json(arguments.json, diagnosis.to_json())
    show(diagnosis, Console())
    if diagnosis.healthy and {"train", "val"} <= diagnosis.images.keys():
        say(f"next: crispseg train {shlex.quote(str(arguments.root))} --out runs/mine")
    return 0 if diagnosis.healthy else 1


def show(diagnosis: "Diagnosis", console: "Console") -> None:
    """Print the classes as a table, then the findings, errors first."""
    counts = ", ".join(f"{name} {count}" for name, count in diagnosis.images.items()) or "none"
    head = f"{diagnosis.root} (layout: {diagnosis.layout}), images: {counts}"
    console.print(_plain(head), highlight=False, soft_wrap=True)
    if diagnosis.table:
        console.print(_table(diagnosis))
        words = "pixels: share of all that are not void; border: share of a class that is border\n"
        console.print(words, style="dim", highlight=False, soft_wrap=True)
    for finding in diagnosis.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        line = f"[bold {colour}]{finding.severity}[/] [{colour}]{finding.code}[/] {_plain(finding.message)}"
        console.print(line, highlight=False, soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in diagnosis.findings)
    warnings = len(diagnosis.findings) - errors
    console.print(
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}",
        style="bold red" if errors else "bold green",
        highlight=False,
    )


def _plain(text: str) -> str:
    """Text of the user's, which is no markup."""
    from rich.markup import escape

    return escape(printable(text))


def _table(diagnosis: "Diagnosis") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table("", "class", box=box.SIMPLE_HEAD)
    for split in diagnosis.images:
        table.add_column(f"{_plain(split)}\npixels %", justify="right")
    table.add_column("in images %", justify="right")
    table.add_column("border %", justify="right")
    for row in diagnosis.table:
        shares = [f"{100 * row['pixels'][split]:.2f}" for split in diagnosis.images]
        last = f"{100 * row['images']:.0f}", f"{100 * row['border']:.1f}"
        table.add_row(str(row["index"]), _plain(row["name"]), *shares, *last)
    return table


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "reading", total)
