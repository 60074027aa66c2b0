"""Evaluations as tables for a terminal. Nothing is computed here.

Names come from users' files: they are shown as they are, never taken for markup, and none of their control characters
reaches the terminal.
"""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crispseg.errors import printable
from crispseg.evaluation import KINDS, Evaluation, title
from crispseg.evaluation.verdict import points

COSTS = (("parameters", "parameters", 1e6, "M"), ("FLOPs", "flops", 1e9, "G"), ("latency", "latency_ms", 1, "ms"))


def evaluation_tables(results: Mapping[str, Evaluation], title: str) -> list[Table]:
    """The summary of each evaluation side by side, then the classes of the first, and where its errors come from."""
    summaries = {name: result.summary() for name, result in results.items()}
    first = next(iter(summaries.values()))
    head = _table(f"{title}: {first['images']} images", ["", *summaries])
    for label, pick in (
        ("mIoU", lambda s: s["miou"]),
        ("pixel accuracy", lambda s: s["pixel_accuracy"]),
        ("Boundary IoU", lambda s: s["boundary_iou"]),
        *((f"boundary F, {t} px", lambda s, t=t: s["boundary_f"][t]) for t in first["boundary_f"]),
        *((f"trimap IoU, {r} px", lambda s, r=r: s["trimap_iou"][r]) for r in first["trimap_iou"]),
    ):
        head.add_row(label, *(number(pick(s)) for s in summaries.values()))
    classes = _table("classes", ["class", "IoU", "Boundary IoU", *(f"F {t} px" for t in first["boundary_f"])])
    for name, scores in first["per_class"].items():
        cells = [scores["iou"], scores["boundary_iou"], *scores["boundary_f"].values()]
        classes.add_row(named(name), *map(number, cells))
    return [head, classes, *([_anatomy_table(first)] if "anatomy" in first else [])]


def seam_table(seams: Mapping[str, Any]) -> Table:
    """What windows leave where they meet, against one whole pass."""
    overlap, pictures = seams["overlap"], f"{seams['pictures']} picture{'s' * (seams['pictures'] != 1)}"
    title = f"seams: windows that overlap by {overlap} px against one whole pass, of {pictures}"
    table = _table(title, ["", f"within {seams['d']} px of a seam", "elsewhere", "difference, 95 %"])
    low, high = map(_hundredths, seams["interval"])
    near, elsewhere = (percent(seams[key]) for key in ("near", "elsewhere"))
    table.add_row("pixels that differ, %", near, elsewhere, f"{_hundredths(seams['difference'])} [{low}, {high}]")
    table.add_row("boundary F, 1 px", *map(number, seams["boundary_f"]), "")
    return table


def _hundredths(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.2f}".replace("-", "−")


def _anatomy_table(summary: Mapping[str, Any]) -> Table:
    anatomy = summary["anatomy"]
    table = _table("errors: the share of each class that is wrong, by kind", ["class", *KINDS])
    for name in summary["per_class"]:
        table.add_row(named(name), *(number(anatomy["per_class"].get(name, {}).get(kind)) for kind in KINDS))
    table.add_row("all pixels", *(number(anatomy[kind]) for kind in KINDS), style="bold")
    table.add_row("mIoU they cost", *(number(anatomy["miou_cost"][kind]) for kind in KINDS), style="bold")
    return table


def named(text: str, style: str = "") -> Text:
    """A name as a cell or a heading."""
    return Text(printable(text), style)


def number(value: float | None) -> str:
    """Four decimals; a dash where there was nothing to measure."""
    return "–" if value is None else f"{value:.4f}"


def _table(title: str, columns: list[Any]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(named(str(column)), justify="right" if i else "left")
    return table


def show(*tables: Table) -> None:
    """Print tables, each under its title, which is not bound to its width; off a terminal as wide as they are."""
    for table in tables:
        console, heading = Console(), named(str(table.title), "bold")
        table.title = None
        if not console.is_terminal:
            console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(heading, soft_wrap=True)
        console.print(table)


def comparison_table(result: Mapping[str, Any]) -> Table:
    """Every metric of every contender, and the differences to the baseline with their intervals, in points."""
    names = list(result["contenders"])
    human = result.get("human")
    columns = ["", *names, *(f"{name} − {names[0]}" for name in names[1:]), *(["human"] if human else [])]
    table = _table("in %, differences in points with 95 % intervals", columns)
    for metric in result["contenders"][names[0]]["metrics"]:
        cells = [percent(result["contenders"][name]["metrics"][metric]["mean"]) for name in names]
        for name in names[1:]:
            row = result["differences"][name][metric]
            missing = row["difference"] is None or row["low"] is None
            interval = "" if missing else f" [{points(row['low'])}, {points(row['high'])}]"
            cells.append("–" if missing else points(row["difference"]) + interval)
        if human:
            cells.append(percent(human["headline"][metric]))
        decisive = metric in result["decisive"]
        table.add_row(title(metric), *(Text(cell) for cell in cells), style="bold" if decisive else None)
    costs = result.get("costs", {}).get("of", {})
    for words, key, unit, mark in COSTS if costs else ():
        found = {name: costs[name][key] for name in costs}
        cells = [f"{found[name] / unit:.2f} {mark}" if found.get(name) is not None else "–" for name in names]
        table.add_row(words, *cells)
    return table


def percent(value: float | None) -> str:
    """A value of 0–1 in %, one decimal; a dash where there was nothing to measure."""
    return "–" if value is None else f"{100 * value:.1f}"
