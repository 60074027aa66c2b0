"""Write masks for images:
  crispseg predict --run runs/mine photos/ more/*.jpg --out masks

Images of any size, by windows in constant memory; a TIFF keeps its georeference, and a killed prediction resumes:
  crispseg predict --run runs/mine scene.tif --out masks --large

Many images, by a process a core or a GPU, on this machine or a cluster of Ray's; also between object stores:
  crispseg predict --run runs/mine s3://bucket/photos --out s3://bucket/masks --ray

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
from crispseg.cli._large import LARGE, large_flags, say_size, scenes_of
from crispseg.cli._parser import Flag, path, refuse_idle, whole
from crispseg.cli._prediction import check_options, model_flag, prediction_flags, prediction_of
from crispseg.errors import UsageError, printable
from crispseg.progress import track

FILMS = frozenset((".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"))
"""Suffixes of films."""
RAY = frozenset({"--ray"})


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
            kind=place,
            required=True,
            metavar="OUT",
            help="folder for masks, or a film",
        ),
        model_flag(),
        *prediction_flags(),
        *large_flags("by windows (--window) in constant memory, each pixel as it is; TIFF in, TIFF out"),
        *ray_flags(),
        Flag(
            name="--overlay",
            group="output",
            switch=True,
            default=False,
            help="also write OUT/overlays/NAME.jpg: image and classes",
        ),
        Flag(
            name="--steady",
            group="output",
            switch=True,
            default=False,
            help="of a film: average scores along the motion, so that borders flicker less",
        ),
        Flag(
            name="--overwrite",
            group="output",
            switch=True,
            default=False,
            help="replace masks of OUT that another run wrote, or of other pictures",
        ),
    ]


def place(word: str) -> str | Path:
    """Read a path, or the URL of a folder of an object store."""
    return word if "://" in word else path(word)


def ray_flags() -> list[Flag]:
    """Who predicts."""
    shared: dict[str, Any] = {"group": "many processes", "of": RAY}
    return [
        Flag(
            name="--ray",
            group="many processes",
            switch=True,
            default=False,
            help="by workers of a Ray cluster: that at RAY_ADDRESS or running here, or one of this machine alone",
        ),
        Flag(
            name="--workers",
            kind=whole(1),
            metavar="N",
            help="how many",
            shown="as many as there are cores, or GPUs",
            **shared,
        ),
        Flag(name="--cores", kind=whole(1), metavar="N", default=1, help="of each worker", **shared),
    ]


def run(arguments: Any) -> int:
    """Predict, then name what could not be read."""
    if any(not word for word in arguments.inputs):
        raise UsageError("INPUT: expected an image, a folder or a pattern, found an empty word")
    refuse_idle(
        arguments,
        flags(),
        (LARGE if arguments.large else frozenset()) | (RAY if arguments.ray else frozenset()),
        "without it pictures are seen whole, by one process",
    )
    remote = [word for word in (*arguments.inputs, str(arguments.out)) if "://" in word]
    if remote and not arguments.ray:
        raise UsageError(f"{remote[0]}: object stores go with --ray")
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
    predict = _by_ray if arguments.ray else _large if arguments.large else _whole
    if arguments.steady:
        raise UsageError("--steady is about films; these are pictures")
    outcome = predict(arguments, loaded, options)
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
    from crispseg.inference import predict_scenes

    seen = scenes_of(arguments, options)
    say_size(loaded)
    return predict_scenes(
        loaded.model,
        loaded.classes,
        arguments.inputs,
        arguments.out,
        source=str(loaded.path.resolve()),
        seen=seen,
        overwrite=arguments.overwrite,
        device=options["device"],
        scales=options["scales"],
        flip=options["flip"],
        track=_progress,
    )


def _by_ray(arguments: Any, loaded: Any, options: dict[str, Any]) -> Any:
    from crispseg.distributed import Workers, predict_dataset

    workers = Workers(count=arguments.workers, cores=arguments.cores)
    if arguments.large:
        say_size(loaded)
        seen = scenes_of(arguments, options)
        options = {key: options[key] for key in ("device", "scales", "flip")}
    else:
        seen, options = None, {**options, "size": loaded.config.data.size}
    return predict_dataset(
        loaded,
        arguments.inputs,
        arguments.out,
        factory=arguments.model,
        workers=workers,
        seen=seen,
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        track=lambda answers, total: track(answers, "predicting", total),
        **options,
    )


def _film(arguments: Any, loaded: Any, options: dict[str, Any], films: Sequence[str]) -> int:
    from crispseg.errors import require
    from crispseg.inference import Steady, predict_film

    if arguments.large or arguments.ray or len(arguments.inputs) > 1:
        other = "--large" if arguments.large else "--ray" if arguments.ray else f"{len(arguments.inputs)} inputs"
        raise UsageError(f"{films[0]} is a film, and one film is predicted at a time; found {other}")
    if arguments.steady:
        require("steady", "cv2", purpose="--steady")
    film = predict_film(
        loaded.model,
        loaded.classes,
        films[0],
        arguments.out,
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        steady=Steady() if arguments.steady else None,
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
