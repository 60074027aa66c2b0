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
from benchmarks.operator import ALL, CALLS, LAYOUTS, OURS
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
    """Ours in both layouts, every form, against the better conv2d; a line a shape and number of threads."""
    cells = {(tuple(row["shape"]), row["threads"], row["operator"], row["layout"]): row for row in rows}
    lines = []
    for shape in _shapes(rows):
        for threads in sorted({row["threads"] for row in rows}):
            for name in OURS:
                keys = [(shape, threads, name, layout) for layout in LAYOUTS]
                if all(key in cells for key in keys):
                    found = [cells[key] for key in keys]
                    limit = _limit(name, shape[1])
                    ratios = [f"{row['f_ratio']:.2f} / {row['fb_ratio']:.2f}" for row in found]
                    calls = min(row["calls"] for row in found)
                    lines.append([size(list(shape)), threads, _form(name), *ratios, f"{limit:.2f}", calls])
    head = ["B×C×H×W", "threads", "form", *(f"{layout}, forward / forward + backward" for layout in LAYOUTS),
            "asked, forward + backward ≤", "calls"]  # fmt: skip
    return [*table(head, lines), ""]


def _limit(name: str, channels: int) -> float:
    """What was asked of forward + backward against the better conv2d."""
    if name == "one":
        return 1.10
    if name.startswith(("gaussian", "cosine")):
        return 1.25 if channels >= 256 else 1.50
    return 1.10 if channels >= 256 else 1.30


def _form(name: str) -> str:
    return "charbonnier" if name == "auto" else name


def beside(rows: list[Row]) -> list[str]:
    """Ours and conv2d beside busy processes: how much slower than alone, and against each other."""
    alone = {_of(row): row for row in rows if not row["beside"]}
    lines = [
        [size(row["shape"]), row["threads"], row["beside"], _form(row["operator"]), row["layout"],
         f"{row['fb_ms']:.0f}", f"{row['fb_ms'] / alone[_of(row)]['fb_ms']:.2f}", f"{row['fb_ratio']:.2f}",
         row["calls"]]
        for row in rows
        if row["beside"] and _of(row) in alone
    ]  # fmt: skip
    head = ["B×C×H×W", "threads", "busy processes", "operator", "layout", "forward + backward, ms", "/ alone",
            "/ the better conv2d beside them", "calls"]  # fmt: skip
    return [*table(head, lines), ""]


def _of(row: Row) -> tuple[Any, ...]:
    return tuple(row["shape"]), row["operator"], row["layout"], row["threads"]


def unfolded(rows: list[Row]) -> list[str]:
    """Against the unfold form: memory and time, ours in its layout."""
    cells = {(tuple(row["shape"]), row["operator"]): row for row in rows if row["layout"] == "contiguous"}
    lines, gains = [], []
    for shape in _shapes(rows):
        ours, mark, unfold = (cells.get((shape, name)) for name in ("auto", "conv2d", "unfold"))
        if ours and mark and unfold:
            gains.append(unfold["fb_ratio"] / ours["fb_ratio"])  # each to the conv2d of its own run
            memory = ours["fb_mib"] / mark["fb_mib"], unfold["fb_mib"] / ours["fb_mib"]
            lines.append([size(list(shape)), f"{memory[0]:.2f}", f"{memory[1]:.1f}", f"{gains[-1]:.1f}"])
    if not gains:
        return []
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    head = ["B×C×H×W", "memory / conv2d (≤ 1.5)", "unfold's memory / ours (≥ 5)", "unfold's time / ours"]
    return [*table(head, lines), "", f"Geometric mean of the last column: **{mean:.1f}** (asked: at least 6).", ""]


def peers(rows: list[Row]) -> list[str]:
    """All operators, all shapes, with the most threads."""
    head = ["B×C×H×W", "operator", "layout", "forward, ms", "/ conv2d", "forward + backward, ms", "/ conv2d",
            "memory, MiB", "calls"]  # fmt: skip
    lines = [
        [size(row["shape"]), _form(row["operator"]), row["layout"], f"{row['f_ms']:.1f}", f"{row['f_ratio']:.2f}",
         f"{row['fb_ms']:.1f}", f"{row['fb_ratio']:.2f}", f"{row['fb_mib']:.0f}" if "fb_mib" in row else "–",
         row["calls"]]
        for row in sorted(rows, key=lambda row: (row["shape"][1:], list(ALL).index(row["operator"]), row["layout"]))
    ]  # fmt: skip
    return [*table(head, lines), ""]


def floor(rows: list[Row]) -> list[str]:
    """Operations and bytes by counting, and the time of the products alone at the rate of the better conv2d."""
    found: dict[tuple[Any, str], float] = {}
    for row in rows:  # the better layout of each
        key = tuple(row["shape"]), row["operator"]
        found[key] = min(row["f_ms"], found.get(key, math.inf))
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
        return "Medians of an unknown number of calls (it was not kept): to be measured again."
    return f"Medians of {spread(counts)} interleaved calls."


def growth(rows: list[Row]) -> list[str]:
    """Forward + backward along each axis of the shape."""
    lines = []
    for axis, shape, cells in _grown(rows):
        mark = min(cells["conv2d", layout]["fb_ms"] for layout in LAYOUTS)
        ours = [cells["auto", layout] for layout in LAYOUTS]
        lines.append([axis, size(shape), shape[4], f"{mark:.1f}",
                      *(f"{row['fb_ms']:.1f} ({row['fb_ratio']:.2f})" for row in ours)])  # fmt: skip
    head = ["grows", "B×C×H×W", "k", "the better conv2d, ms", *(f"ours, {layout}, ms (ratio)" for layout in LAYOUTS)]
    return [*table(head, lines), "", how_often(rows), ""]


def _grown(rows: list[Row]) -> list[tuple[str, list[int], dict[tuple[str, str], Row]]]:
    """Axis and shape, with the rows of each operator and layout."""
    found: dict[tuple[str, tuple[int, ...]], dict[tuple[str, str], Row]] = {}
    for row in rows:
        found.setdefault((row["axis"], tuple(row["shape"])), {})[row["operator"], row["layout"]] = row
    return [(axis, list(shape), cells) for (axis, shape), cells in found.items()]


def plot(rows: list[Row], path: Path) -> None:
    """Milliseconds, forward + backward, in the better layout, against each axis of the shape; ours and the mark."""
    plt.rcParams["svg.hashsalt"] = "crispseg"  # the same numbers give the same file
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    index = {"C": 1, "H·W": 2, "k": 4, "B": 0}
    figure, panels = plt.subplots(
        1, len(axes), figsize=(3 * len(axes), 2.8), layout="constrained", sharey=True, squeeze=False
    )
    for panel, axis in zip(panels[0], axes, strict=True):
        for name, label in (("conv2d", "F.conv2d"), ("auto", "semantic difference")):
            mine = [(shape, cells) for of, shape, cells in _grown(rows) if of == axis]
            x = [shape[index[axis]] ** (2 if axis == "H·W" else 1) for shape, _ in mine]
            best = [min(cells[name, layout]["fb_ms"] for layout in LAYOUTS) for _, cells in mine]
            panel.loglog(x, best, marker="o", label=label)
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
    operators = [row for row in operators if "layout" in row]
    if operators:
        quiet = [row for row in operators if not row["beside"]]
        most = [row for row in quiet if row["threads"] == max(row["threads"] for row in quiet)]
        commits = ", ".join(dict.fromkeys(row["commit"] for row in operators))
        lines += [
            f"{stamp['processor']}, float32, torch {stamp['torch']}, {stamp['date'][:10]}, commit {commits}. Every "
            "ratio is against the better layout of `F.conv2d` in the same run, between medians of interleaved calls "
            f"(how many is in the last column; at least {CALLS}).",
            "",
            *targets(quiet),
            *unfolded(most),
        ]
        if len(quiet) < len(operators):
            lines += ["### Beside a busy process", "", *beside(operators)]
        lines += ["### The floor, by counting (forward)", "", *floor(most)]
        lines += ["### All operators", "", *peers(most)]
    for path in sorted(RESULTS.glob("operator-*.json")):
        rows, stamp = read(path.stem)
        commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
        where = f"{stamp['processor']}, torch {stamp['torch']}, {stamp['date'][:10]}, commit {commits}."
        lines += ["### On another processor", "", where, "", *targets([row for row in rows if not row["beside"]])]
    scaling = [row for row in scaling if "layout" in row]
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
    loops, stamp = read("trainer")
    if loops:
        head = ["neck", "bare loop, ms a step", "crispseg train, ms a step", "of the bare loop's speed", "turns"]
        cells = [[row["neck"], f"{row['bare_ms_a_step']:.0f}", f"{row['trainer_ms_a_step']:.0f}", f"{row['rate']:.3f}",
                  row["calls"]] for row in loops]  # fmt: skip
        lines += ["### The trainer beside a bare loop", "", *table(head, cells), "",
                  f"One thread, processor time, {loops[0]['size']}×{loops[0]['size']}, four images a step; "
                  f"{stamp['processor']}, {stamp['date'][:10]}, commit {stamp['commit']}.", ""]  # fmt: skip
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    write_text(PAGE, before + "\n".join([*lines, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
