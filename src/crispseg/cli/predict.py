"""Write masks for images: crispseg predict --run runs/mine photos/ more/*.jpg --out masks

Each mask is a palette PNG of class indices at its image's size, named as the image. An image that cannot be read is
named and left out; all others are written, and the exit code is then 1.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from crispseg.errors import UsageError
from crispseg.inference import Input, predict_files
from crispseg.runs import load_run


def add_arguments(parser: Any) -> None:
    """Where the model, the images and the masks are, and how to look at an image."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder of images, or quoted pattern")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder of a training")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    parser.add_argument("--overlay", action="store_true", help="also write OUT/overlays/NAME.jpg: image and classes")
    parser.add_argument("--overwrite", action="store_true", help="replace masks that another run wrote to OUT")
    parser.add_argument("--window", type=int, nargs=2, metavar=("H", "W"), help="slide a window of H×W pixels")
    parser.add_argument("--stride", type=int, nargs=2, metavar=("H", "W"), help="its steps (default: half a window)")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="average over image scales")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")


def run(arguments: Any) -> int:
    """Predict, then name what could not be read."""
    for flag in ("window", "stride", "scales"):
        values = getattr(arguments, flag)
        if values and min(values) <= 0:
            raise UsageError(f"--{flag}: expected positive numbers, found {' '.join(map(str, values))}")
    window, stride = _pair(arguments.window), _pair(arguments.stride)
    if stride and (not window or stride[0] > window[0] or stride[1] > window[1]):
        raise UsageError(f"--stride {stride[0]} {stride[1]} needs a --window that is at least as large")
    device = _device(arguments.device)
    loaded = load_run(arguments.run)
    outcome = predict_files(
        loaded.model,
        loaded.classes,
        arguments.inputs,
        arguments.out,
        source=str(loaded.path.resolve()),
        overlay=arguments.overlay,
        overwrite=arguments.overwrite,
        size=loaded.config.data.size,
        device=device,
        track=_progress,
        window=window,
        stride=stride,
        scales=tuple(arguments.scales),
        flip=arguments.flip,
    )
    count = len(outcome.written)
    print(f"{arguments.out}: {count} mask{'s' * (count != 1)} written")
    for error in outcome.failed:
        print(f"crispseg: left out: {error}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _progress(pictures: Sequence[Input]) -> Iterable[Input]:
    console = Console(stderr=True)
    return track(pictures, description="predicting", console=console, disable=not console.is_terminal)


def _pair(values: list[int] | None) -> tuple[int, int] | None:
    return (values[0], values[1]) if values else None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} is not to be had here: {str(error).splitlines()[0]}") from error
    return device
