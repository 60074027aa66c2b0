"""Look at a data set and write a config for training on it:
  crispseg plan ROOT
  crispseg train --config plan.yaml --out runs/mine

Sizes, widths of things, classes, void and films are counted in at most 400 pictures, and a few steps are timed on this
machine. Each line of plan.yaml gives its reason; edit what you know better. To run both commands at once, use
crispseg train ROOT --out runs/mine.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, positive
from crispseg.cli.train import layout_of, look_at
from crispseg.config import from_dict
from crispseg.errors import UsageError, printable


def flags() -> list[Flag]:
    """The data set, where the plan goes, and how long a training may take."""
    return [
        Flag(name="root", kind=path, metavar="ROOT", help="folder of the data set"),
        Flag(name="--out", kind=path, metavar="FILE", help="file to write", shown="plan.yaml"),
        Flag(name="--overwrite", switch=True, default=False, help="replace the file"),
        Flag(name="--data.layout", dest="layout", metavar="NAME", help="its layout", shown="what it looks like"),
        Flag(
            name="--label2",
            kind=path,
            metavar="DIR",
            help="a second annotator's masks, called as the labels: the human level, and tolerances from it",
        ),
        Flag(
            name="--range-test",
            switch=True,
            default=False,
            help="take the learning rate from 60 steps at rising rates (Smith 2017), which takes as long as 60 steps",
        ),
        Flag(
            name="--minutes",
            kind=positive,
            metavar="N",
            help="what a training may take; fewer epochs if need be",
            shown="as long as it takes",
        ),
    ]


def run(arguments: Any) -> int:
    """Plan, write, print."""
    out = arguments.out or Path("plan.yaml")
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"{out} is there already; give --out FILE, or --overwrite")
    from crispseg.files import write_text
    from crispseg.planning import plan

    layout = arguments.layout or layout_of(arguments.root)
    look_at(from_dict({"data": {"root": str(arguments.root), "layout": layout}}))
    print(printable(f"crispseg: looking at {arguments.root}, and timing a few steps"), file=sys.stderr)
    made = plan(
        arguments.root,
        layout,
        minutes=arguments.minutes,
        second=arguments.label2,
        ranged=arguments.range_test,
    )
    text = made.text()
    write_text(out, text)
    say(text)
    say(f"next: crispseg train --config {shlex.quote(str(out))} --out runs/mine")
    return 0
