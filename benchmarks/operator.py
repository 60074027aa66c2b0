"""Semantic difference against ``F.conv2d`` and its peers: time and peak memory, forward and forward + backward.

    python -m benchmarks.operator                      # all shapes
    python -m benchmarks.operator --shapes 1x256x128   # some shapes
    python -m benchmarks.operator --only scaling       # how cost grows with C, H·W, k and B
    python -m benchmarks.operator --only sizes         # fifty images of fifty sizes

Results are merged into ``benchmarks/results/operator.json``, a row a shape and operator.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import RESULTS, calls, interleaved, medians, peak_memory, save, stamp
from benchmarks.rivals import OPERATORS, Operator

SHAPES = (
    (2, 64, 128, 128),
    (1, 256, 128, 128),
    (2, 256, 64, 64),
    (2, 512, 32, 32),
    (2, 1024, 16, 16),
    (1, 64, 270, 480),
)
SCALING = {
    "C": [(1, C, 64, 64, 3) for C in (32, 64, 128, 256, 512)],
    "H·W": [(1, 128, n, n, 3) for n in (16, 32, 64, 128, 256)],
    "k": [(1, 128, 64, 64, k) for k in (3, 5, 7)],
    "B": [(B, 128, 64, 64, 3) for B in (1, 2, 4, 8)],
}
SLOW = ("unfold", "pixel adaptive", "deformable", "reference")


def inputs(B: int, C: int, H: int, W: int, k: int = 3) -> tuple[list[Tensor], Tensor]:
    """u, v, W that need gradients, and the gradient of y."""
    torch.manual_seed(0)
    shapes = ((B, C, H, W), (B, C, H, W), (C, C, k, k))
    return [torch.randn(shape).div_(C**0.5).requires_grad_() for shape in shapes], torch.randn(B, C, H, W)


def forward(operator: Operator, tensors: list[Tensor]) -> Tensor:
    """The result alone."""
    with torch.no_grad():
        return operator(*tensors)


def both(operator: Operator, tensors: list[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    """The result and its gradients."""
    return torch.autograd.grad(operator(*tensors), tensors, g, allow_unused=True)


def measure(shape: tuple[int, ...], seconds: float, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row an operator: medians in milliseconds and ratios to ``F.conv2d``."""
    tensors, g = inputs(*shape)
    fast = {name: OPERATORS[name] for name in names if name not in SLOW}
    slow = {name: OPERATORS[name] for name in ("conv2d", *names) if name in SLOW or name == "conv2d"}
    slow = slow if len(slow) > 1 else {}
    times: dict[str, dict[str, float]] = {}
    for group, share in ((fast, 0.6), (slow, 0.4)):  # the slow ones would leave the fast ones too few rounds
        rivals: dict[tuple[str, str], Callable[[], object]] = {}
        for name, call in group.items():
            rivals[name, "f"], rivals[name, "fb"] = partial(forward, call, tensors), partial(both, call, tensors, g)
        turns = interleaved(rivals, seconds=seconds * share)
        found = medians(turns)
        for (name, kind), value in found.items():
            times.setdefault(name, {}).setdefault(f"{kind}_ms", 1e3 * value)
            times[name].setdefault(f"{kind}_ratio", value / found["conv2d", kind])
            times[name].setdefault("calls", calls(turns))
    commit = stamp()["commit"]
    return [{"shape": list(shape), "operator": name, **row, "commit": commit} for name, row in times.items()]


def add_memory(row: dict[str, Any]) -> None:
    """Peak memory of a row, MiB above what goes in and comes out. It changes how memory is allocated: timings first."""
    tensors, g = inputs(*row["shape"])
    results = 0

    def call() -> list[Tensor | None]:
        nonlocal results
        y = OPERATORS[row["operator"]](*tensors)
        grads = torch.autograd.grad(y, tensors, g, allow_unused=True)
        results = sum(x.nbytes for x in (y, *grads) if x is not None)
        return [y, *grads]

    row["fb_mib"] = (peak_memory(call) - results) / 2**20


def fifty_sizes() -> list[dict[str, Any]]:
    """Fifty images of fifty sizes, each seen once: seconds of ours and of the reference."""
    semantic = {name: OPERATORS[name] for name in ("auto", "reference")}
    for call in semantic.values():
        forward(call, inputs(1, 64, 8, 8)[0])
    rows = []
    for i in range(50):
        shape = (1, 64, 20 + 3 * i, 190 - 2 * i)
        tensors, _ = inputs(*shape)
        row: dict[str, Any] = {"shape": list(shape)}
        for name, call in semantic.items():
            start = time.perf_counter()
            forward(call, tensors)
            row[f"{name}_s"] = time.perf_counter() - start
        rows.append(row)
    return rows


def main() -> None:
    """Measure, merge with what was measured before, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", help="BxCxH[xW], comma-separated; default all")
    parser.add_argument("--operators", help="comma-separated, conv2d among them; default all")
    parser.add_argument("--only", choices=["operators", "scaling", "sizes"], default="operators")
    parser.add_argument("--seconds", type=float, default=8.0, help="timing budget a shape")
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    if options.only == "scaling":
        rows = [
            {"axis": axis, **row}
            for axis, shapes in SCALING.items()
            for shape in shapes
            for row in measure(shape, options.seconds, ("conv2d", "auto"))
        ]
        save("operator_scaling", rows)
        return
    if options.only == "sizes":
        save("operator_sizes", fifty_sizes())
        return
    wanted: tuple[tuple[int, ...], ...] = SHAPES
    if options.shapes:
        numbers = [tuple(map(int, text.split("x"))) for text in options.shapes.split(",")]
        wanted = tuple(n if len(n) == 4 else (*n, n[2]) for n in numbers)
    names = tuple(options.operators.split(",")) if options.operators else tuple(OPERATORS)
    rows = []
    for shape in wanted:
        rows += measure(shape, options.seconds, names)
        _merge(rows)
    for row in rows:
        add_memory(row)
        _merge(rows)
        print({key: round(x, 2) if isinstance(x, float) else x for key, x in row.items()}, flush=True)


def _merge(rows: list[dict[str, Any]]) -> None:
    """Save ``rows``, and of the earlier ones those of other shapes and operators."""
    path = RESULTS / "operator.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    new = [(row["shape"], row["operator"]) for row in rows]
    save("operator", [row for row in before if (row["shape"], row["operator"]) not in new] + rows)


if __name__ == "__main__":
    main()
