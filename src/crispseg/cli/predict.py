"""Write masks for images:
  crispseg predict --run runs/mine photos/ more/*.jpg --out masks

Images of any size, by windows in constant memory; a TIFF keeps its georeference, and a killed prediction resumes:
  crispseg predict --run runs/mine scene.tif --out masks --large

A film, in constant memory; NAME.mkv holds class indices, NAME.mp4 shows their colours, a folder gets one PNG per frame:
  crispseg predict --run runs/mine film.mp4 --out seen.mp4 --overlay

Each mask is a palette PNG of class indices at its image's size, with the image's name. An image that cannot be read is
named and skipped; all others are written, and the exit code is then 1.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, number, path, refuse_idle, whole
from crispseg.cli._prediction import check_options, model_flag, prediction_flags, prediction_of
from crispseg.errors import UsageError, printable
from crispseg.progress import track

FILMS = frozenset((".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"))
"""Suffixes of films."""
LARGE = frozenset({"--large"})


def flags() -> list[Flag]:
    """Where the model, the images and the masks are, and how to look at an image."""
    return [
        Flag(
            name="inputs",
            group="used first",
            nargs="+",
            metavar="INPUT",
            help="image, folder of images, or quoted pattern",
        ),
        Flag(
            name="--run",
            group="used first",
            kind=path,
            required=True,
            metavar="DIR|FILE",
            help="run folder of a training, or exported file",
        ),
        Flag(
            name="--out",
            group="used first",
            kind=path,
            required=True,
            metavar="OUT",
            help="folder for masks, or a film",
        ),
        model_flag(),
        *prediction_flags(),
        *large_flags(),
        Flag(
            name="--overlay",
            group="output",
            switch=True,
            default=False,
            help="also write OUT/overlays/NAME.jpg: image and classes",
        ),
        Flag(
            name="--overwrite",
            group="output",
            switch=True,
            default=False,
            help="replace masks of OUT that another run wrote, or of other pictures",
        ),
    ]


def large_flags() -> list[Flag]:
    """How pictures of any size are seen."""
    shared: dict[str, Any] = {"group": "images of any size", "of": LARGE}
    return [
        Flag(
            name="--large",
            group="images of any size",
            switch=True,
            default=False,
            help="by windows (--window) in constant memory, each pixel as it is; TIFF in, TIFF out",
        ),
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


def run(arguments: Any) -> int:
    """Predict, then name what could not be read."""
    if any(not word for word in arguments.inputs):
        raise UsageError("INPUT: expected an image, a folder or a pattern, found an empty word")
    refuse_idle(arguments, flags(), {"--large"} if arguments.large else set(), "without it pictures are seen whole")
    if arguments.large and (clash := arguments.given & {"--stride", "--refine", "--overlay"}):
        hint = "; say the overlap of windows by --overlap" if "--stride" in clash else ""
        raise UsageError(f"{min(clash)} does not go with --large{hint}")
    from crispseg.runs import load_run

    options = prediction_of(arguments)
    loaded = load_run(arguments.run, factory=arguments.model)
    check_options(arguments, loaded)
    films = [word for word in arguments.inputs if Path(word).suffix.lower() in FILMS]
    if films:
        return _film(arguments, loaded, options, films)
    outcome = (_large if arguments.large else _whole)(arguments, loaded, options)
    count = len(outcome.written)
    say(f"{arguments.out}: {count} mask{'s' * (count != 1)} written")
    for error in outcome.failed:
        print(printable(f"crispseg: left out: {error}"), file=sys.stderr)
    return 1 if outcome.failed else 0


def _whole(arguments: Any, loaded: Any, options: dict[str, Any]) -> Any:
    from crispseg.inference import predict_files

    return predict_files(
        loaded.model,
        loaded.classes,
        arguments.inputs,
        arguments.out,
        source=str(loaded.path.resolve()),
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        size=loaded.config.data.size,
        track=partial(_progress, what="predicting"),
        **options,
    )


def _large(arguments: Any, loaded: Any, options: dict[str, Any]) -> Any:
    from crispseg.inference import Scenes, predict_scenes

    limits = arguments.range and (arguments.range[0], arguments.range[1])
    if limits and not limits[0] < limits[1]:
        raise UsageError(f"--range {limits[0]:g} {limits[1]:g}: expected LOW below HIGH")
    chosen = {"window": options["window"]} if options["window"] else {}
    bands = arguments.bands and tuple(arguments.bands)
    if (size := loaded.config.data.size) is not None:
        print(
            f"crispseg: the run saw pictures brought to {size[0]}×{size[1]} px; --large shows it each pixel as it is",
            file=sys.stderr,
        )
    return predict_scenes(
        loaded.model,
        loaded.classes,
        arguments.inputs,
        arguments.out,
        source=str(loaded.path.resolve()),
        seen=Scenes(**chosen, overlap=arguments.overlap, batch=arguments.batch, bands=bands, limits=limits),
        overwrite=arguments.overwrite,
        device=options["device"],
        scales=options["scales"],
        flip=options["flip"],
        track=_progress,
    )


def _film(arguments: Any, loaded: Any, options: dict[str, Any], films: Sequence[str]) -> int:
    from crispseg.inference import predict_film

    if arguments.large or len(arguments.inputs) > 1:
        other = "--large" if arguments.large else f"{len(arguments.inputs)} inputs"
        raise UsageError(f"{films[0]} is a film, and one film is predicted at a time; found {other}")
    film = predict_film(
        loaded.model,
        loaded.classes,
        films[0],
        arguments.out,
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        size=loaded.config.data.size,
        track=track,
        **options,
    )
    say(f"{arguments.out}: {film.frames} frame{'s' * (film.frames != 1)} written")
    if film.failed is not None:
        print(printable(f"crispseg: {film.failed}"), file=sys.stderr)
    return 1 if film.failed else 0


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    return track(items, printable(what), len(items))
