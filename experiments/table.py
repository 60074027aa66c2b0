"""From the JSON files of a study to its tables: one line a row, mean ± standard deviation over its seeds.

    python -m experiments.table controls solver        # writes them into docs/results.md
    python -m experiments.table controls --split val --columns classes
    python -m experiments.table place --first controls/none        # with a row of another study

A table replaces what stands between ``<!-- table NAME -->`` and ``<!-- /table -->`` in the page, where NAME is the
study's name, with ``-val`` for the validation split, ``-classes`` for the IoU of each class, ``-anatomy`` for the kinds
of error, ``-cost`` for what they cost in mIoU.

Not here: training and evaluating (``experiments.study``), figures (``experiments.figure``), differences with their
intervals (``experiments.differences``).
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from crispseg.evaluation import KINDS
from crispseg.files import write_text

HERE = Path(__file__).parent
Result = dict[str, Any]
COLUMNS: dict[str, Callable[[Result], float]] = {
    "mIoU": lambda r: r["miou"],
    "boundary F 1 px": lambda r: r["boundary_f"]["1"],
    "3 px": lambda r: r["boundary_f"]["3"],
    "5 px": lambda r: r["boundary_f"]["5"],
    "Boundary IoU": lambda r: r["boundary_iou"],
    "trimap IoU 3 px": lambda r: r["trimap_iou"]["3"],
}


def _anatomy(*keys: str) -> Callable[[Result], float]:
    """What reads a number of the error anatomy."""
    return lambda r: reduce(getitem, keys, r["anatomy"])


ANATOMY = {"wrong pixels": _anatomy("wrong"), **{kind: _anatomy(kind) for kind in KINDS}}
COST = {kind: _anatomy("miou_cost", kind) for kind in KINDS}


def read_row(results: Path, name: str) -> list[Result]:
    """The runs of the row ``STUDY/ROW`` by seed."""
    study, row = name.split("/")
    found = [json.loads(path.read_text()) for path in (results / study).glob("*.json")]
    return sorted((run for run in found if run["row"] == row), key=lambda run: run["seed"])


def rows_of(study: Path, results: Path, first: str | None, split: str) -> dict[str, list[Result]]:
    """The rows of a study file that have runs seen on ``split``, as it names them, after ``first`` (STUDY/ROW)."""
    names = [f"{study.stem}/{row}" for row in yaml.safe_load(study.read_text())["rows"]]
    rows = {
        name.split("/")[1]: [run for run in read_row(results, name) if split in run["results"]]
        for name in ([first] if first else []) + names
    }
    if not any(rows.values()):
        raise SystemExit(f"{results / study.stem}: no results of {study} on {split} yet; experiments.study makes them")
    return {name: runs for name, runs in rows.items() if runs}


def table(rows: dict[str, list[Result]], split: str, columns: dict[str, Callable[[Result], float]]) -> str:
    """The Markdown table: values in %, then what each run cost and where it ran."""
    head = ["row", "seeds", *columns, "parameters", "training"]
    lines = [line(head), "|---|---|" + "---:|" * (len(columns) + 2)]
    for name, runs in rows.items():
        values = [_spread([100 * column(run["results"][split]) for run in runs]) for column in columns.values()]
        parameters = runs[0]["training"]["parameters"] / 1e6
        minutes = statistics.median(run["training"]["seconds"] for run in runs) / 60
        lines.append(
            line(
                [
                    name,
                    ", ".join(str(run["seed"]) for run in runs),
                    *values,
                    f"{parameters:.2f} M",
                    f"{minutes:.0f} min",
                ]
            )
        )
    runs = [run for runs in rows.values() for run in runs]
    machines = {(t["machine"]["gpu"] or t["machine"]["processor"], t["machine"]["threads"]) for t in _trainings(runs)}
    where = "; ".join(f"{name}, {threads} thread(s) a run" for name, threads in sorted(machines))
    commits = ", ".join(sorted({t["commit"] for t in _trainings(runs)}))
    images = runs[0]["results"][split]["images"]
    lines.append(
        f"\nValues in %, on the {images} images of {split}, mean ± standard deviation over the seeds; best checkpoint "
        f"chosen on val. Trained at {commits} on: {where}; times are wall-clock of a machine that did other work too."
    )
    return "\n".join(lines)


def classes(rows: dict[str, list[Result]], split: str) -> dict[str, Callable[[Result], float]]:
    """One column a class, thin ones first: by the share of a class's true pixels that are boundary."""
    found = next(iter(rows.values()))[0]["results"][split]["per_class"]
    thin = sorted(found, key=lambda name: -found[name]["true_boundary_pixels"] / max(1, found[name]["true_pixels"]))
    return {name: partial(_class_iou, name) for name in thin}


def replace_table(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the markers of table ``name`` in ``page``."""
    pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    content, count = pattern.subn(lambda m: m[1] + text + "\n" + m[2], page.read_text())
    if count != 1:
        raise SystemExit(f"{page}: expected one pair of markers <!-- table {name} --> … <!-- /table -->, found {count}")
    write_text(page, content)


def _class_iou(name: str, result: Result) -> float:
    return float(result["per_class"][name]["iou"])


def _trainings(runs: list[Result]) -> list[Result]:
    return [run["training"] for run in runs]


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--split", default="test", choices=("test", "val"))
    parser.add_argument("--columns", default="means", choices=("means", "classes", "anatomy", "cost"))
    parser.add_argument("--first", metavar="STUDY/ROW", help="a row of another study, above all others")
    parser.add_argument("--folder", type=Path, default=HERE / "studies", help="where the study files are")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--print", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    for study in arguments.studies:
        rows = rows_of(arguments.folder / f"{study}.yaml", arguments.results, arguments.first, arguments.split)
        fixed = {"means": COLUMNS, "anatomy": ANATOMY, "cost": COST}
        text = table(rows, arguments.split, fixed.get(arguments.columns) or classes(rows, arguments.split))
        print(text)
        suffixes = [part for part, usual in ((arguments.split, "test"), (arguments.columns, "means")) if part != usual]
        name = "-".join([study, *suffixes])
        if not arguments.print:
            replace_table(arguments.page, name, text)


if __name__ == "__main__":
    main()
