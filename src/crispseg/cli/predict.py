"""Write masks for images:
  crispseg predict --run runs/mine photos/ more/*.jpg --out masks

Each mask is a palette PNG of class indices at its image's size, named as the image. An image that cannot be read is
named and left out; all others are written, and the exit code is then 1.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path
from crispseg.cli._prediction import check_options, model_flag, prediction_flags, prediction_of
from crispseg.errors import UsageError, printable
from crispseg.progress import track


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
        Flag(name="--out", group="used first", kind=path, required=True, metavar="DIR", help="folder for the masks"),
        model_flag(),
        *prediction_flags(),
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


def run(arguments: Any) -> int:
    """Predict, then name what could not be read."""
    if any(not word for word in arguments.inputs):
        raise UsageError("INPUT: expected an image, a folder or a pattern, found an empty word")
    from crispseg.inference import predict_files
    from crispseg.runs import load_run

    options = prediction_of(arguments)
    loaded = load_run(arguments.run, factory=arguments.model)
    check_options(arguments, loaded)
    outcome = predict_files(
        loaded.model,
        loaded.classes,
        arguments.inputs,
        arguments.out,
        source=str(loaded.path.resolve()),
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        size=loaded.config.data.size,
        track=_progress,
        **options,
    )
    count = len(outcome.written)
    say(f"{arguments.out}: {count} mask{'s' * (count != 1)} written")
    for error in outcome.failed:
        print(printable(f"crispseg: left out: {error}"), file=sys.stderr)
    return 1 if outcome.failed else 0


def _progress(pictures: Sequence[Any]) -> Iterable[Any]:
    return track(pictures, "predicting", len(pictures))
