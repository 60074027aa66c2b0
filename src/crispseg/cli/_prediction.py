"""How a run looks at an image: the flags that predict, evaluate and compare share, and their checks."""

from typing import Any

import torch

from crispseg.errors import UsageError, in_a_line


def add_prediction(parser: Any) -> None:
    """How a run looks at an image."""
    parser.add_argument("--window", type=int, nargs=2, metavar=("H", "W"), help="slide a window of H×W pixels")
    parser.add_argument("--stride", type=int, nargs=2, metavar=("H", "W"), help="its steps (default: half a window)")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="average over image scales")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")


def add_model(parser: Any) -> None:
    """The code of a network of the user's own, which a run folder alone cannot make anyone run."""
    parser.add_argument("--model", metavar="PATH.py:FACTORY", help="run this code, if the run's network needs it")


def prediction_of(arguments: Any) -> dict[str, Any]:
    """The window, stride, scales, flip and device that :func:`add_prediction` asked for; UsageError if they clash."""
    for flag in ("window", "stride", "scales"):
        values = getattr(arguments, flag)
        if values and min(values) <= 0:
            raise UsageError(f"--{flag}: expected positive numbers, found {' '.join(map(str, values))}")
    window, stride = pair(arguments.window), pair(arguments.stride)
    if stride and (not window or stride[0] > window[0] or stride[1] > window[1]):
        raise UsageError(f"--stride {stride[0]} {stride[1]} needs a --window that is at least as large")
    return {
        "window": window,
        "stride": stride,
        "scales": tuple(arguments.scales),
        "flip": arguments.flip,
        "device": _device(arguments.device),
    }


def pair(values: list[int] | None) -> tuple[int, int] | None:
    """(height, width) of a flag with two numbers."""
    return (values[0], values[1]) if values else None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} is not to be had here: {in_a_line(error)}") from error
    return device
