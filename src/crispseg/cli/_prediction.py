"""How a run looks at an image: the flags that predict, evaluate and compare share, and their checks."""

from typing import Any

from crispseg.cli._parser import Flag, positive, whole
from crispseg.errors import UsageError
from crispseg.names import REFINERS

SIDE = whole(1)


def prediction_flags(of: frozenset[str] = frozenset(), refine: frozenset[str] | None = None) -> list[Flag]:
    """How a run looks at an image. ``refine``: what --refine is about, if it is about more than the others."""
    shared: dict[str, Any] = {"group": "protocol", "of": of}
    return [
        Flag(name="--window", numbers=2, kind=SIDE, metavar="H W", help="slide a window of H×W pixels", **shared),
        Flag(name="--stride", numbers=2, kind=SIDE, metavar="H W", help="its steps", shown="half a window", **shared),
        Flag(
            name="--scales",
            numbers=0,
            kind=positive,
            metavar="S …",
            help="average over image scales",
            shown="1",
            **shared,
        ),
        Flag(name="--flip", switch=True, default=False, help="average with the mirror image", **shared),
        refine_flag(of if refine is None else refine),
        Flag(name="--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:1, …", **shared),
    ]


def refine_flag(of: frozenset[str] = frozenset(), default: str | None = None) -> Flag:
    """What refines class scores before the largest is taken."""
    return Flag(
        name="--refine",
        metavar="NAME[:KEY=VALUE,…]",
        group="protocol",
        of=of,
        default=default,
        help=f"refine the class scores with the image: {', '.join(REFINERS)} (docs/refinement.md)",
    )


def model_flag(of: frozenset[str] = frozenset()) -> Flag:
    """The code of a network of the user's own, which a run folder alone cannot make anyone run."""
    return Flag(name="--model", metavar="PATH.py:FACTORY", help="run this code, if the run's network needs it", of=of)


def prediction_of(arguments: Any) -> dict[str, Any]:
    """What :func:`prediction_flags` asked for; UsageError if it clashes."""
    from crispseg.inference.predictor import choose_device

    window, stride = pair(arguments.window), pair(arguments.stride)
    if stride and (not window or stride[0] > window[0] or stride[1] > window[1]):
        raise UsageError(f"--stride {stride[0]} {stride[1]} needs a --window that is at least as large")
    return {
        "window": window,
        "stride": stride,
        "scales": tuple(arguments.scales or (1.0,)),
        "flip": arguments.flip,
        "refiner": refiner_of(arguments),
        "device": choose_device(arguments.device),
    }


def check_options(arguments: Any, run: Any) -> None:
    """UsageError for words that say nothing about this run: code that it does not need, scores that it has not."""
    from crispseg.exported import ExportedNetwork

    exported = isinstance(run.model, ExportedNetwork)
    if arguments.model is not None and (exported or run.config.model.factory is None):
        what = "holds its network" if exported else "is of crispseg's"
        raise UsageError(f"--model goes with a run of a network of your own; {run.path} {what}")
    if exported and run.model.facts.gives == "mask":
        for flag in ("--refine", "--scales", "--flip"):
            if flag in arguments.given:
                raise UsageError(f"{flag} works on class scores; {run.path} gives masks: export it without --argmax")


def refiner_of(arguments: Any) -> Any:
    """The refiner that :func:`refine_flag` asked for, or None; UsageError if it is none."""
    if arguments.refine is None:
        return None
    from crispseg.refinement import read_refiner

    try:
        return read_refiner(arguments.refine)
    except UsageError as error:
        raise UsageError(f"--refine: {error}") from error


def pair(values: list[int] | None) -> tuple[int, int] | None:
    """(height, width) of a flag with two numbers."""
    return (values[0], values[1]) if values else None
