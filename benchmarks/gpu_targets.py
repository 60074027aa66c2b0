"""What the operator should cost on a GPU: the targets, what bytes and operations predict, and what falls short.

The prediction needs no GPU: each stage's traffic and products are counted, and divided by the rates of an H100.
"""

from typing import Any

from benchmarks.gpu_parts import SHAPES

Rows = dict[str, list[dict[str, Any]]]
BYTES_PER_S, FLOPS_PER_S = 3e12, 6e14
"""Of one H100: its memory, and bfloat16 products as cuBLAS reaches them. Counted at full rate: a lower bound."""
TAPS = 8


def stages(shape: tuple[int, ...], itemsize: int = 2) -> dict[str, tuple[float, float]]:
    """Bytes and floating-point operations of every stage, C_out = C, a 3×3 stencil, charbonnier.

    Maps are read once, because a pixel's neighbours are in the cache; D is written once and read once.
    """
    B, C, H, W = shape
    map_bytes = B * C * H * W * itemsize
    weight = C * C * TAPS * itemsize
    product = 2.0 * B * H * W * C * C * TAPS
    return {
        "forward: differences": (2 * map_bytes + TAPS * map_bytes, 0.0),
        "forward: product": (TAPS * map_bytes + weight + map_bytes, product),
        "backward: differences again": (2 * map_bytes + TAPS * map_bytes, 0.0),
        "backward: ∂W": (TAPS * map_bytes + map_bytes + 2 * weight, product),
        "backward: ∂D": (map_bytes + weight + TAPS * map_bytes, product),
        "backward: ∂u and ∂v": (2 * map_bytes + 2 * TAPS * map_bytes + 2 * map_bytes, 0.0),
    }


def seconds(counts: tuple[float, float]) -> float:
    """Time of a stage: of its traffic or of its products, whichever is longer."""
    return max(counts[0] / BYTES_PER_S, counts[1] / FLOPS_PER_S)


def convolution_seconds(shape: tuple[int, ...], itemsize: int = 2) -> float:
    """The same count for a 3×3 convolution, forward and backward: three products, maps read and written once each."""
    B, C, H, W = shape
    product, map_bytes = 2.0 * B * H * W * C * C * 9, B * C * H * W * itemsize
    return 3 * max(product / FLOPS_PER_S, 2 * map_bytes / BYTES_PER_S)


def prediction() -> str:
    """The table of docs/performance.md: µs a stage, and forward + backward against a convolution, counted alike."""
    names = list(stages(SHAPES[0]))
    lines = ["| shape | " + " | ".join(names) + " | forward + backward | / conv2d |", "|---" * (len(names) + 3) + "|"]
    for shape in SHAPES:
        times = [seconds(count) for count in stages(shape).values()]
        cells = " | ".join(f"{1e6 * t:.0f}" for t in times)
        ratio = sum(times) / convolution_seconds(shape)
        lines.append(f"| {'×'.join(map(str, shape))} | {cells} | {1e6 * sum(times):.0f} | {ratio:.1f} |")
    return "\n".join(lines)


def report(rows: Rows) -> str:
    """The operator's table, then every target that is missed, by how much; or that none is."""
    table = _table(rows["operator"])
    missed = list(_missed(rows))
    return "\n".join([table, "", *(missed or ["Nothing that was measured falls short of the targets."])])


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (*row["shape"], row["dtype"])


def _conv(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """conv2d of each shape and number type, in the better of its two layouts."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["operator"] == "conv2d" and "fb_ms" in row:
            best[_key(row)] = min(best.get(_key(row), row), row, key=lambda r: r["fb_ms"])
    return best


def _table(rows: list[dict[str, Any]]) -> str:
    conv = _conv(rows)
    lines = [
        "| shape | numbers | layout | operator | forward ms | f + b ms | / better conv2d | MiB |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        start = f"| {'×'.join(map(str, row['shape']))} | {row['dtype']} | {row['layout']} | {row['operator']} "
        if "error" in row:
            lines.append(start + f"| {row['error'][:60]} | | | |")
            continue
        mark = conv.get(_key(row))
        ratio = f"{row['fb_ms'] / mark['fb_ms']:.2f}" if mark else "–"
        memory = "–" if row["fb_mib"] is None else f"{row['fb_mib']:.0f}"
        lines.append(start + f"| {row['f_ms']:.3f} | {row['fb_ms']:.3f} | {ratio} | {memory} |")
    return "\n".join(lines)


def _missed(rows: Rows) -> Any:
    for row in rows["correctness"]:
        if not row.get("within"):
            yield f"WRONG: {row}"
    for row in rows["compilation"]:
        if row["seconds"] > 5:
            yield f"first call on {row['shape']}, {row['similarity']}: {row['seconds']:.1f} s, target 5 s"
    conv = _conv(rows["operator"])
    times = {(*_key(r), r["layout"], r["operator"]): r for r in rows["operator"] if "fb_ms" in r}
    for row in rows["operator"]:
        if "error" in row:
            yield f"FAILED: {row['operator']} on {row['shape']} {row['dtype']} {row['layout']}: {row['error']}"
            continue
        mark, large = conv.get(_key(row)), row["shape"][1] >= 256
        most = {"charbonnier": (1.5, 2.5), "cosine": (1.8, 3.0), "gaussian contrast": (1.8, 3.0), "one": (1.1, 1.1)}
        if not mark or row["operator"] not in most or row["layout"] != "channels-last" or row["dtype"] != "bfloat16":
            continue
        target, ratio = most[row["operator"]][not large], row["fb_ms"] / mark["fb_ms"]
        what = f"{row['operator']} on {row['shape']}"
        if ratio > target:
            yield f"{what}: {ratio:.2f}× conv2d, target {target}×"
        if row["fb_mib"] is not None and row["fb_mib"] > 4 * max(mark["fb_mib"], 1):
            yield f"{what}: {row['fb_mib']:.0f} MiB, target 4 × conv2d's {mark['fb_mib']:.0f}"
        unfold = times.get((*_key(row), row["layout"], "unfold"))
        faster = 6 if large else 1
        if unfold and row["operator"] == "charbonnier" and unfold["fb_ms"] < faster * row["fb_ms"]:
            yield f"{what}: unfold takes {unfold['fb_ms'] / row['fb_ms']:.1f}× our time, target {faster}×"
    steps = {(r["network"], r["neck"]): r["step_ms"] for r in rows["network"] if "step_ms" in r}
    name = "EfficientNet-Lite0 + FPN"
    if {(name, "none"), (name, "sdn")} <= steps.keys():
        share = steps[name, "sdn"] / steps[name, "none"] - 1
        if share > 0.25:
            yield f"the head's SDN in a training step of {name}: +{100 * share:.0f} %, target +25 %"
