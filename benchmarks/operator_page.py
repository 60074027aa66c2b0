"""The measured part of ``docs/performance.md``: tables and plot from the results on disk.

    python -m benchmarks.operator_page

Replaces what stands between the two marker comments of the page; the prose around it is written by hand.

Not here: the measurements (``benchmarks.operator``, ``benchmarks.neck``).
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.measure import RESULTS, spread
from benchmarks.rivals import OPERATORS
from crispseg.files import write_text

PAGE = RESULTS.parents[1] / "docs" / "performance.md"
PLOT = PAGE.parent / "figures" / "operator_scaling.svg"
BEGIN, END = "<!-- measured: begin (python -m benchmarks.operator_page) -->", "<!-- measured: end -->"
Row = dict[str, Any]


def read(subject: str) -> tuple[list[Row], Row]:
    """Rows and stamp of one result, or none."""
    path = RESULTS / f"{subject}.json"
    result = json.loads(path.read_text()) if path.exists() else {"rows": [], "stamp": {}}
    return result["rows"], result["stamp"]


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(x) for x in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def size(shape: list[int]) -> str:
    """(B, C, H, W) as it is written in the tables."""
    return "×".join(map(str, shape[:4]))


def targets(rows: list[Row]) -> list[str]:
    """Ours against the mark and against the unfold form, a line a shape, and what was asked."""
    cells = {(tuple(row["shape"]), row["operator"]): row for row in rows}
    lines, gains = [], []
    for shape in _shapes(rows):
        ours, mark, unfold = (cells[shape, name] for name in ("auto", "conv2d", "unfold"))
        gain = unfold["fb_ratio"] / ours["fb_ratio"]  # each to the conv2d of its own run
        gains.append(gain)
        limit = (1.25, "1.15") if shape[1] >= 256 else (2.0, "–")
        lines.append([
            size(list(shape)), f"{ours['f_ratio']:.2f}", limit[1], f"{ours['fb_ratio']:.2f}", f"{limit[0]:.2f}",
            f"{ours['fb_mib'] / mark['fb_mib']:.2f}", f"{unfold['fb_mib'] / ours['fb_mib']:.1f}", f"{gain:.1f}",
        ])  # fmt: skip
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    head = ["B×C×H×W", "forward / conv2d", "asked ≤", "forward + backward / conv2d", "asked ≤",
            "memory / conv2d (≤ 1.5)", "unfold's memory / ours (≥ 5)", "unfold's time / ours"]  # fmt: skip
    return [*table(head, lines), "", f"Geometric mean of the last column: **{mean:.1f}** (asked: at least 6).", ""]


def peers(rows: list[Row]) -> list[str]:
    """All operators, all shapes."""
    head = [
        "B×C×H×W",
        "operator",
        "forward, ms",
        "/ conv2d",
        "forward + backward, ms",
        "/ conv2d",
        "memory, MiB",
        "calls",
    ]
    lines = [
        [size(row["shape"]), row["operator"], f"{row['f_ms']:.1f}", f"{row['f_ratio']:.2f}", f"{row['fb_ms']:.1f}",
         f"{row['fb_ratio']:.2f}", f"{row['fb_mib']:.0f}" if "fb_mib" in row else "–", row.get("calls", "–")]
        for row in sorted(rows, key=lambda row: (row["shape"][1:], list(OPERATORS).index(row["operator"])))
    ]  # fmt: skip
    return [*table(head, lines), ""]


def floor(rows: list[Row]) -> list[str]:
    """Operations and bytes by counting, and the time that the products alone take at the rate of conv2d."""
    found = {(tuple(row["shape"]), row["operator"]): row["f_ms"] for row in rows}
    lines = []
    for B, C, H, W in _shapes(rows):
        N, ms = B * H * W, found[(B, C, H, W), "conv2d"]
        convolution, products, stage = 2 * 9 * C * C * N, 2 * 8 * C * C * N, 4 * 8 * C * N
        ours = found[(B, C, H, W), "auto"]
        lines.append([
            size([B, C, H, W]), f"{convolution / 1e9:.2f}", f"{products / 1e9:.2f}", f"{stage / 1e9:.2f}",
            f"{12 * C * N / 2**20:.0f}", f"{32 * C * N / 2**20:.0f}", f"{convolution / ms / 1e6:.0f}",
            f"{products / ours / 1e6:.0f}", f"{products / convolution * ms:.1f}", f"{ours:.1f}",
        ])  # fmt: skip
    head = ["B×C×H×W", "conv2d, GFLOP", "our products, GFLOP", "elementwise, GFLOP", "u, v, y, MiB", "D if whole, MiB",
            "conv2d, GFLOP/s", "our products in our time, GFLOP/s", "products at conv2d's rate, ms",
            "forward, ms"]  # fmt: skip
    return [*table(head, lines), ""]


def _shapes(rows: list[Row]) -> list[tuple[int, ...]]:
    return sorted({tuple(row["shape"][:4]) for row in rows}, key=lambda shape: shape[1:])


def neck(rows: list[Row]) -> list[str]:
    """What the neck adds to three models."""
    base = {(row["encoder"], row["decoder"]): row for row in rows if row["neck"] == "none"}
    lines = []
    for row in rows:
        plain = base[row["encoder"], row["decoder"]]
        added = [f"{row[key]:.0f} ({row[key] / plain[key]:.2f}×)" for key in ("forward_ms", "step_ms")]
        lines.append([f"{row['encoder']} + {row['decoder']}", row["neck"], *added, row.get("calls", "–")])
    return [*table(["model", "neck", "forward, ms", "training step, ms", "calls"], lines), ""]


def pieces(rows: list[Row]) -> list[str]:
    """What was tried, and what each gave."""
    found = [row for row in rows if row["what"] == "route"]
    channels = list(dict.fromkeys(row["C"] for row in found))
    rate = {(row["C"], row["name"]): f"{row['gflops']:.0f}" for row in found}
    lines = [[name, *(rate[C, name] for C in channels)] for name in dict.fromkeys(row["name"] for row in found)]
    text = [*table(["product of one tile, GFLOP/s", *(f"C = {C}" for C in channels)], lines), ""]
    found = [row for row in rows if row["what"] == "whole"]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in found))
    cell = {(tuple(row["shape"]), row["name"]): f"{row['f_ms']:.0f} / {row['fb_ms']:.0f}" for row in found}
    lines = [[name, *(cell[s, name] for s in shapes)] for name in dict.fromkeys(row["name"] for row in found)]
    text += [*table(["forward / forward + backward, ms", *(size(list(s)) for s in shapes)], lines), ""]
    return [*text, how_often(rows), ""]


def how_often(rows: list[Row]) -> str:
    """Of how many calls the numbers of a table are medians."""
    counts = [row["calls"] for row in rows if "calls" in row]
    if len(counts) < len(rows):
        return "Medians of a number of calls that was not kept: to be measured again."
    return f"Medians of {spread(counts)} calls in turns."


def growth(rows: list[Row]) -> list[str]:
    """Forward + backward along each axis of the shape."""
    cell = {(row["axis"], tuple(row["shape"]), row["operator"]): row["fb_ms"] for row in rows}
    lines = [
        [axis, "×".join(map(str, shape[:4])), shape[4], f"{cell[axis, shape, 'conv2d']:.1f}", f"{ms:.1f}",
         f"{ms / cell[axis, shape, 'conv2d']:.2f}"]
        for (axis, shape, name), ms in cell.items()
        if name == "auto"
    ]  # fmt: skip
    return [*table(["grows", "B×C×H×W", "k", "conv2d, ms", "ours, ms", "ratio"], lines), "", how_often(rows), ""]


def plot(rows: list[Row], path: Path) -> None:
    """Milliseconds, forward + backward, against each axis of the shape; ours and the mark."""
    plt.rcParams["svg.hashsalt"] = "crispseg"  # the same numbers give the same file
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    index = {"C": 1, "H·W": 2, "k": 4, "B": 0}
    figure, panels = plt.subplots(
        1, len(axes), figsize=(3 * len(axes), 2.8), layout="constrained", sharey=True, squeeze=False
    )
    for panel, axis in zip(panels[0], axes, strict=True):
        for name, label in (("conv2d", "F.conv2d"), ("auto", "semantic difference")):
            mine = [row for row in rows if row["axis"] == axis and row["operator"] == name]
            x = [row["shape"][index[axis]] ** (2 if axis == "H·W" else 1) for row in mine]
            panel.loglog(x, [row["fb_ms"] for row in mine], marker="o", label=label)
        panel.set_xlabel(axis)
        panel.set_xticks(x, [f"{value}" for value in x], rotation=30)
        panel.minorticks_off()
    panels[0][0].set_ylabel("forward + backward, ms")
    panels[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Write the plot and the part of the page between the markers."""
    operators, stamp = read("operator")
    scaling, _ = read("operator_scaling")
    necks, _ = read("neck")
    lines = [BEGIN, ""]
    if operators:
        commits = ", ".join(dict.fromkeys(row["commit"] for row in operators))
        lines += [f"{stamp['processor']}, {stamp['threads']} threads, float32, torch {stamp['torch']}, "
                  f"{stamp['date'][:10]}, commit {commits}.", "", *targets(operators)]  # fmt: skip
        lines += ["### The floor, by counting (forward)", "", *floor(operators)]
        lines += ["### All operators", "", *peers(operators)]
    if scaling:
        plot(scaling, PLOT)
        lines += ["### How cost grows", "", f"![cost against C, H·W, k and B](figures/{PLOT.name})", ""]
        lines += growth(scaling)
    sizes, _ = read("operator_sizes")
    if sizes:
        ours, reference = (sum(row[key] for row in sizes) for key in ("auto_s", "reference_s"))
        worst = max(row["auto_s"] / row["reference_s"] for row in sizes)
        lines += ["### Fifty images of fifty sizes", "",
                  f"C = 64, forward, each size seen for the first time: {ours:.2f} s in all, the reference "
                  f"{reference:.2f} s; ours / reference at the worst size: {worst:.2f}.", ""]  # fmt: skip
    tried, _ = read("operator_pieces")
    if tried:
        lines += ["### What was tried on the CPU", "", *pieces(tried)]
    if necks:
        lines += ["### The neck as a whole, 512×512 (forward: 1 image; step: 2)", "", *neck(necks)]
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    write_text(PAGE, before + "\n".join([*lines, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
