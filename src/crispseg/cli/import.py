"""Bring a data set of another tool into the folders that crispseg reads:
  crispseg import SOURCE OUT
  crispseg import SOURCE OUT --split 0.7,0.15,0.15 --group '^([^_]+)'

SOURCE is a folder as a tool exports it, or one annotation file. OUT will hold images/, labels/, classes.json and
import.json, which names everything that was left out, and why. Then: crispseg doctor OUT.

Of shapes that overlap the larger lies below. A pixel belongs to a shape if its centre does.
"""

import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, number, path, whole
from crispseg.progress import track


def flags() -> list[Flag]:
    """What to read, where to, and how it is split."""
    return [
        Flag(name="source", kind=path, metavar="SOURCE", help="the data set: a folder, or its annotation file"),
        Flag(name="out", kind=path, metavar="OUT", help="folder to write; must be empty or absent"),
        Flag(
            name="--format",
            metavar="NAME",
            help="format of SOURCE; docs/own_data.md lists them",
            shown="what it looks like",
        ),
        Flag(name="--images", kind=path, metavar="DIR", help="a further folder to look for pictures in"),
        Flag(name="--table", kind=path, metavar="FILE", help="names and colours (or values) of the classes, for masks"),
        Flag(name="--names", metavar="WORD …", nargs="+", help="names of the classes in order, where SOURCE has none"),
        Flag(
            name="--split",
            kind=number,
            numbers=0,
            metavar="SHARES",
            help="shares of train, val and test, such as 0.7,0.15,0.15",
            shown="SOURCE's own splits where it has train and val, else 0.8,0.2",
        ),
        Flag(name="--group", metavar="REGEX", help="names that agree in it stay on one side of a split"),
        Flag(name="--seed", kind=whole(0), metavar="N", default=0, help="seed of the split"),
        Flag(name="--link", switch=True, default=False, help="link pictures instead of copying them"),
    ]


def run(arguments: Any) -> int:
    """Import, and say what was read and what was left out."""
    from crispseg.data import import_data

    report = import_data(
        arguments.source,
        arguments.out,
        format=arguments.format,
        images=arguments.images,
        split=arguments.split,
        group=arguments.group,
        seed=arguments.seed,
        link=arguments.link,
        names=arguments.names or (),
        table=arguments.table,
        track=_progress,
    )
    counts = ", ".join(f"{name} {count}" for name, count in report.images.items())
    total = sum(report.images.values())
    say(f"{arguments.source}: {report.format}, {total} picture{'s' * (total != 1)} ({counts}; {report.split})")
    say(f"classes: {', '.join(report.classes)}; void {report.ignore_index}")
    for note in report.notes:
        say(note)
    for why, count in Counter(why for _, why in report.dropped).most_common(10):
        first = next(what for what, reason in report.dropped if reason == why)
        say(f"left out: {first}: {why}" + (f" (and {count - 1} more)" if count > 1 else ""))
    if report.dropped:
        say(f"{len(report.dropped)} left out in all; {arguments.out}/import.json names each")
    say(f"next: crispseg doctor {shlex.quote(str(arguments.out))}")
    return 0


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "importing", total)
