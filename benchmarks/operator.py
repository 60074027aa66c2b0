"""Semantic difference against ``F.conv2d`` and its peers: time and peak memory, forward and forward + backward.

    python -m benchmarks.operator                      # all shapes, both layouts, one thread and two
    python -m benchmarks.operator --shapes 1x256x128   # some shapes
    python -m benchmarks.operator --beside 1           # beside a busy process
    python -m benchmarks.operator --machine amd        # on another processor, beside the first one's results
    python -m benchmarks.operator --only scaling       # how cost grows with C, H·W, k and B
    python -m benchmarks.operator --only sizes         # fifty images of fifty sizes

Every ratio is to the better of ``F.conv2d``'s two layouts in the same run. Results are merged into
``benchmarks/results/operator.json`` (``operator-<machine>.json``), a row a shape, operator, layout, number of threads
and of busy processes.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import RESULTS, interleaved, medians, peak_memory, save, stamp
from benchmarks.rivals import OPERATORS, Operator
from crispseg import semantic_difference
from crispseg.similarity import SimilarityName

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
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
SLOW = ("unfold", "pixel adaptive", "deformable", "reference")
"""Timed apart, as they are written (contiguous), with the most threads alone."""
CALLS = 5
"""The least calls that a median is of."""
ROW = ("shape", "operator", "layout", "threads", "beside")
"""What tells rows apart."""


def of_form(similarity: SimilarityName, contrast: bool) -> Operator:
    """Semantic difference in another form than the default."""
    return lambda u, v, weight: semantic_difference(u, v, weight, similarity=similarity, contrast=contrast)


OURS: dict[str, Operator] = {
    "auto": OPERATORS["auto"],
    "charbonnier, contrast": of_form("charbonnier", True),
    "gaussian": of_form("gaussian", False),
    "gaussian, contrast": of_form("gaussian", True),
    "cosine": of_form("cosine", False),
    "cosine, contrast": of_form("cosine", True),
    "one": of_form("one", False),
}
ALL: dict[str, Operator] = {"conv2d": OPERATORS["conv2d"], **OURS, **OPERATORS}


def inputs(B: int, C: int, H: int, W: int, k: int = 3, *, layout: str = "contiguous") -> tuple[list[Tensor], Tensor]:
    """u, v, W that need gradients, and the gradient of y."""
    torch.manual_seed(0)
    shapes = ((B, C, H, W), (B, C, H, W), (C, C, k, k))
    maps = [torch.randn(shape).div_(C**0.5) for shape in shapes]
    *tensors, g = (x.contiguous(memory_format=LAYOUTS[layout]) for x in (*maps, torch.randn(B, C, H, W)))
    return [x.requires_grad_() for x in tensors], g


def forward(operator: Operator, tensors: list[Tensor]) -> Tensor:
    """The result alone."""
    with torch.no_grad():
        return operator(*tensors)


def both(operator: Operator, tensors: list[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    """The result and its gradients."""
    return torch.autograd.grad(operator(*tensors), tensors, g, allow_unused=True)


def measure(shape: tuple[int, ...], seconds: float, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row an operator and layout: medians in milliseconds, and ratios to the better conv2d of the same run."""
    data = {layout: inputs(*shape, layout=layout) for layout in LAYOUTS}
    fast = [(name, layout) for name in names if name not in SLOW for layout in LAYOUTS]
    slow = [(name, "contiguous") for name in names if name in SLOW]
    slow = [*((("conv2d", layout)) for layout in LAYOUTS), *slow] if slow else []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for group, share in ((fast, 0.6), (slow, 0.4)):  # the slow ones would leave the fast ones too few rounds
        calls: dict[tuple[str, str, str], Callable[[], object]] = {}
        for name, layout in group:
            tensors, g = data[layout]
            calls[name, layout, "f"] = partial(forward, ALL[name], tensors)
            calls[name, layout, "fb"] = partial(both, ALL[name], tensors, g)
        times = interleaved(calls, seconds=seconds * share, least=CALLS) if calls else {}
        found = medians(times)
        for (name, layout, kind), value in found.items():
            mark = min(found["conv2d", other, kind] for other in LAYOUTS)
            row = rows.setdefault((name, layout), {"shape": list(shape), "operator": name, "layout": layout})
            row.setdefault(f"{kind}_ms", 1e3 * value)
            row.setdefault(f"{kind}_ratio", value / mark)
            row.setdefault("calls", len(times[name, layout, kind]))
    commit = stamp()["commit"]
    return [{**row, "threads": torch.get_num_threads(), "commit": commit} for row in rows.values()]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def add_memory(row: dict[str, Any]) -> None:
    """Peak memory of a row, MiB above what goes in and comes out. It changes how memory is allocated: timings first."""
    tensors, g = inputs(*row["shape"], layout=row["layout"])
    results = 0

    def call() -> list[Tensor | None]:
        nonlocal results
        y = ALL[row["operator"]](*tensors)
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
    parser.add_argument("--shapes", help="BxCxH[xW], separated by semicolons or commas; default all")
    parser.add_argument("--operators", help="separated by semicolons, conv2d among them; default all")
    parser.add_argument("--threads", default="1,2", help="comma-separated; the slow rivals run with the most alone")
    parser.add_argument("--beside", type=int, default=0, help="busy processes beside it (no slow rivals, no memory)")
    parser.add_argument("--only", choices=["operators", "scaling", "sizes"], default="operators")
    parser.add_argument("--machine", help="a name: results go to operator-<machine>.json, with a table of their own")
    parser.add_argument("--seconds", type=float, default=40.0, help="timing budget a shape")
    options = parser.parse_args()
    threads = sorted(map(int, options.threads.split(",")))
    torch.set_num_threads(threads[-1])
    if options.only == "scaling":
        rows = [
            {"axis": axis, **row}
            for axis, shapes in SCALING.items()
            for shape in shapes
            for row in measure(shape, options.seconds / 5, ("conv2d", "auto"))
        ]
        save("operator_scaling", rows)
        return
    if options.only == "sizes":
        save("operator_sizes", fifty_sizes())
        return
    wanted: tuple[tuple[int, ...], ...] = SHAPES
    if options.shapes:
        numbers = [tuple(map(int, text.split("x"))) for text in options.shapes.replace(";", ",").split(",")]
        wanted = tuple(n if len(n) == 4 else (*n, n[2]) for n in numbers)
    names = tuple(options.operators.split(";")) if options.operators else tuple(ALL)
    rows = []
    subject = f"operator-{options.machine}" if options.machine else "operator"
    for shape in wanted:
        for count in threads:
            torch.set_num_threads(count)
            slow = count == threads[-1] and not options.beside
            with busy(options.beside):
                found = measure(shape, options.seconds, tuple(name for name in names if slow or name not in SLOW))
            rows += [{**row, "beside": options.beside} for row in found]
            _merge(subject, rows)
    for row in rows:
        if not options.beside:
            torch.set_num_threads(row["threads"])
            add_memory(row)
            _merge(subject, rows)
        print({key: round(x, 2) if isinstance(x, float) else x for key, x in row.items()}, flush=True)


def _merge(subject: str, rows: list[dict[str, Any]]) -> None:
    """Save ``rows``, and of the earlier ones those that were not measured again."""
    path = RESULTS / f"{subject}.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    new = [_key(row) for row in rows]
    save(subject, [row for row in before if all(name in row for name in ROW) and _key(row) not in new] + rows)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ROW)


if __name__ == "__main__":
    main()
