"""How pictures of any size are seen: the flags that predict and evaluate share, and what they mean."""

import sys
from typing import Any

from crispseg.cli._parser import Flag, number, whole
from crispseg.errors import UsageError

LARGE = frozenset({"--large"})


def large_flags(help: str, of: frozenset[str] = LARGE) -> list[Flag]:
    """``--large``, and how windows lie and a TIFF's values become colours. ``of``: what these are about."""
    shared: dict[str, Any] = {"group": "images of any size", "of": of}
    return [
        Flag(name="--large", group="images of any size", switch=True, default=False, help=help),
        Flag(
            name="--overlap",
            kind=whole(0),
            metavar="PX",
            help="what windows share",
            shown="four times how far the network looks, measured",
            **shared,
        ),
        Flag(name="--batch", kind=whole(1), metavar="N", default=1, help="windows seen at once", **shared),
        Flag(
            name="--bands",
            numbers=0,
            kind=whole(1),
            metavar="R G B",
            help="a TIFF's bands that are the colours",
            **shared,
        ),
        Flag(
            name="--range",
            numbers=2,
            kind=number,
            metavar="LOW HIGH",
            help="values of black and white in a TIFF of more than 8 bits",
            shown="0 255",
            **shared,
        ),
    ]


def scenes_of(arguments: Any, options: dict[str, Any]) -> Any:
    """What :func:`large_flags` asked for, a ``Scenes``; UsageError if it makes no sense."""
    from crispseg.inference import Scenes

    limits = arguments.range and (arguments.range[0], arguments.range[1])
    if limits and not limits[0] < limits[1]:
        raise UsageError(f"--range {limits[0]:g} {limits[1]:g}: expected LOW below HIGH")
    chosen = {"window": options["window"]} if options["window"] else {}
    bands = arguments.bands and tuple(arguments.bands)
    return Scenes(**chosen, overlap=arguments.overlap, batch=arguments.batch, bands=bands, limits=limits)


def say_size(run: Any) -> None:
    """Say that a run which was trained on pictures of one size sees large ones as they are."""
    if (size := run.config.data.size) is not None:
        print(
            f"crispseg: the run saw pictures brought to {size[0]}×{size[1]} px; --large shows it each pixel as it is",
            file=sys.stderr,
        )
