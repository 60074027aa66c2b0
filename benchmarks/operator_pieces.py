"""What was tried for the CPU path: routes for the product, compiled or not, how large tiles and chunks are.

    python -m benchmarks.operator_pieces     # writes benchmarks/results/operator_pieces.json

Not here: the comparison with other operators (``benchmarks.operator``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.measure import calls, interleaved, medians, save
from benchmarks.operator import both, forward, inputs
from benchmarks.rivals import OPERATORS, ours
from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.products import product

SHAPES = ((2, 64, 128, 128), (1, 256, 128, 128), (2, 512, 32, 32))
PARTS = {
    **{f"compiled, tiles of {n} pixels": ("PIXELS", n) for n in (128, 512)},
    **{f"compiled, tiles of {n} columns": ("COLUMNS", dict.fromkeys(native.COLUMNS, n)) for n in (16, 64, 128)},
    **{f"compiled, slices of {n} channels": ("CHANNELS", n) for n in (32, 128)},
}


def routes(C: int, pixels: int, seconds: float) -> list[dict[str, Any]]:
    """Rates of the product [C, 8C] · [8C, pixels] of one tile by every route that ATen has, GFLOP/s."""
    W, D = torch.randn(C, 8 * C), torch.randn(8 * C, pixels)
    image, kernel = D.view(1, 8 * C, pixels // 64, 64), W.view(C, 8 * C, 1, 1)
    last = image.contiguous(memory_format=torch.channels_last)
    rivals: dict[str, Callable[[], object]] = {
        "torch.mm (MKL)": lambda: W @ D,
        "1×1 conv2d": lambda: F.conv2d(image, kernel),
        "1×1 conv2d, channels-last": lambda: F.conv2d(last, kernel),
        "oneDNN linear": lambda: product(W[None], D[None]),
    }
    times = interleaved(rivals, seconds=seconds, most=2000)
    rates = {name: 2 * C * 8 * C * pixels / t / 1e9 for name, t in medians(times).items()}
    return [{"what": "route", "C": C, "name": n, "gflops": rate, "calls": calls(times)} for n, rate in rates.items()]


def whole(shape: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """The operator in ATen and compiled, and compiled with parts of other sizes; channels-last, ms."""
    tensors, g = inputs(*shape, layout="channels-last")
    operators = {"conv2d": OPERATORS["conv2d"], "ATen": ours("tiled"), "compiled": ours("auto")}
    rivals: dict[tuple[str, str], Callable[[], object]] = {}
    for name, operator in operators.items():
        rivals[name, "f"] = partial(forward, operator, tensors)
        rivals[name, "fb"] = partial(both, operator, tensors, g)
    for name, part in PARTS.items():
        for kind in ("f", "fb"):
            rivals[name, kind] = _with(*part, rivals["compiled", kind])
    times = interleaved(rivals, seconds=seconds)
    found = medians(times)
    row = {"what": "whole", "shape": list(shape), "calls": calls(times)}
    names = dict.fromkeys(name for name, _ in rivals)
    return [row | {"name": n, "f_ms": 1e3 * found[n, "f"], "fb_ms": 1e3 * found[n, "fb"]} for n in names]


def _with(size: str, value: object, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with mock.patch.object(native, size, value):
            return call()

    return run


def main() -> None:
    """Measure and save."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = [row for C, pixels in ((64, 4096), (256, 1024), (512, 512)) for row in routes(C, pixels, seconds=2.0)]
    rows += [row for shape in SHAPES for row in whole(shape, seconds=12.0)]
    for row in rows:
        print(row, flush=True)
    save("operator_pieces", rows)


if __name__ == "__main__":
    main()
