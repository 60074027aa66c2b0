"""Write masks for images: crispseg predict --run runs/mine photos/ more/*.jpg --out masks

Each mask is a palette PNG of class indices at its image's size, named as the image. An image that cannot be read is
named and left out; all others are written, and the exit code is then 1.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crispseg.cli._prediction import add_model, add_prediction, prediction_of
from crispseg.inference import Input, predict_files
from crispseg.progress import track
from crispseg.runs import load_run


def add_arguments(parser: Any) -> None:
    """Where the model, the images and the masks are, and how to look at an image."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder of images, or quoted pattern")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder of a training")
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    parser.add_argument("--overlay", action="store_true", help="also write OUT/overlays/NAME.jpg: image and classes")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace masks of OUT that another run wrote, or of other pictures"
    )
    add_prediction(parser)


def run(arguments: Any) -> int:
    """Predict, then name what could not be read."""
    options = prediction_of(arguments)
    loaded = load_run(arguments.run, factory=arguments.model)
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
    print(f"{arguments.out}: {count} mask{'s' * (count != 1)} written")
    for error in outcome.failed:
        print(f"crispseg: left out: {error}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _progress(pictures: Sequence[Input]) -> Iterable[Input]:
    return track(pictures, "predicting", len(pictures))
