"""From what is kept of a study to its tables: one line a row, mean ± standard deviation over its seeds.

    python -m experiments.table                        # every table of a study in the pages, again
    python -m experiments.table controls solver        # these
    python -m experiments.table controls --split val --columns classes

A table replaces what stands between ``<!-- table NAME -->`` and ``<!-- /table -->``, in the one page of ``PAGES`` that
has it, where NAME is the study's name, with ``-val`` for the validation split, ``-classes`` for the IoU of each class,
``-anatomy`` for the kinds of error, ``-cost`` for what they cost in mIoU. ``first: STUDY/ROW`` in a study file puts a
row of another study above its own, ``--first`` does so once.

A row of one training is marked. Where the rows of a table were trained on other processors or with other versions of
torch, each seed says on which.

Not here: training and evaluating (``experiments.study``), figures (``experiments.figure``), differences with their
intervals (``experiments.differences``).
"""

import argparse
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from string import ascii_lowercase

import yaml

from crispseg.evaluation import KINDS
from crispseg.files import write_text
from experiments.kept import HERE, RESULTS, Result, read

PAGES = tuple(HERE.parent / "docs" / f"{page}.md" for page in ("results", "studies", "results_archive", "choosing"))
"""Where tables are: six questions, every study, the studies that others superseded, and what to take."""
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
SPLITS = ("test", "val")
KINDS_OF_COLUMNS = ("means", "classes", "anatomy", "cost")
COST = {kind: _anatomy("miou_cost", kind) for kind in KINDS}


def read_row(results: Path, name: str) -> list[Result]:
    """The runs of the row ``STUDY/ROW`` by seed."""
    study, row = name.split("/")
    return sorted((run for run in read(results, study).values() if run["row"] == row), key=lambda run: run["seed"])


def rows_of(study: Path, results: Path, first: str | None, split: str) -> dict[str, list[Result]]:
    """A study file's rows that have runs seen on ``split``, as it names them, after ``first``, or its own first."""
    tree = yaml.safe_load(study.read_text())
    names = [f"{study.stem}/{row}" for row in tree["rows"]]
    first = first or tree.get("first")
    rows = {
        name.split("/")[1]: [run for run in read_row(results, name) if split in run["results"]]
        for name in ([first] if first else []) + names
    }
    if not any(rows.values()):
        raise SystemExit(f"{results}: no results of {study} on {split} yet; experiments.study makes them")
    return {name: runs for name, runs in rows.items() if runs}


def table(rows: dict[str, list[Result]], split: str, columns: dict[str, Callable[[Result], float]]) -> str:
    """The Markdown table: values in %, then what each run cost and where it ran."""
    everything = [run for runs in rows.values() for run in runs]
    grounds = {ground: letter for letter, ground in zip(ascii_lowercase, sorted(set(map(_ground, everything))))}
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
                    _seeds(runs, grounds),
                    *values,
                    f"{parameters:.2f} M",
                    f"{minutes:.0f} min",
                ]
            )
        )
    machines = {(*_ground(run), run["training"]["machine"]["threads"]) for run in everything}
    where = "; ".join(
        f"{name}, torch {torch}, {threads} {'thread' if threads == 1 else 'threads'} per run"
        for name, torch, threads in sorted(machines)
    )
    commits = ", ".join(sorted({run["training"]["commit"] for run in everything}))
    images = everything[0]["results"][split]["images"]
    foot = [
        f"Values in %, on the {images} images of {split}, mean ± standard deviation over the seeds; best checkpoint "
        f"chosen on val. Trained at {commits} on: {where}. Training times are wall-clock times on a shared machine."
    ]
    if len(grounds) > 1:
        named = "; ".join(f"{letter}: {name}, torch {torch}" for (name, torch), letter in grounds.items())
        foot.append(f"Rows differ in processor or torch ({named}): seeds of different letters are not paired.")
    if any(len(runs) == 1 for runs in rows.values()):
        foot.append("† One training: every difference from it includes the randomness of training.")
    return "\n".join([*lines, "", " ".join(foot)])


def classes(rows: dict[str, list[Result]], split: str) -> dict[str, Callable[[Result], float]]:
    """One column a class, thin ones first: by the share of a class's true pixels that are boundary."""
    found = next(iter(rows.values()))[0]["results"][split]["per_class"]
    thin = sorted(found, key=lambda name: -found[name]["true_boundary_pixels"] / max(1, found[name]["true_pixels"]))
    return {name: partial(_class_iou, name) for name in thin}


def name_of(study: str, split: str, columns: str) -> str:
    """The name of a table: what is usual is left out."""
    return "-".join([study, *(part for part in (split, columns) if part not in (SPLITS[0], KINDS_OF_COLUMNS[0]))])


def tables_of(pages: Iterable[Path]) -> list[str]:
    """The names of the tables that the pages have."""
    return [name for page in pages for name in re.findall(r"<!-- table (\S+) -->", page.read_text())]


def replace_table(pages: Path | Sequence[Path], name: str, text: str) -> None:
    """Put ``text`` between the markers of table ``name``, in the one page that has them."""
    pages = [pages] if isinstance(pages, Path) else pages
    pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    changed = {page: pattern.subn(lambda m: m[1] + text + "\n" + m[2], page.read_text()) for page in pages}
    count = sum(number for _, number in changed.values())
    if count != 1:
        where = ", ".join(map(str, pages))
        raise SystemExit(
            f"{where}: expected one pair of markers <!-- table {name} --> … <!-- /table -->, found {count}"
        )
    for page, (content, number) in changed.items():
        if number:
            write_text(page, content)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that say where numbers come from and where tables go."""
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="the pages, one of which has the table")


def _class_iou(name: str, result: Result) -> float:
    return float(result["per_class"][name]["iou"])


def _ground(run: Result) -> tuple[str, str]:
    """The processor, or the GPU, and the version of torch that a run was trained with."""
    training = run["training"]
    return training["machine"]["gpu"] or training["machine"]["processor"], training["versions"]["torch"]


def _seeds(runs: list[Result], grounds: dict[tuple[str, str], str]) -> str:
    """The seeds of a row, those of one ground together, and the mark of a row that has one."""
    parts = []
    for ground, letter in grounds.items():
        if seeds := [str(run["seed"]) for run in runs if _ground(run) == ground]:
            parts.append(", ".join(seeds) + (f" ({letter})" if len(grounds) > 1 else ""))
    return "; ".join(parts) + (" †" if len(runs) == 1 else "")


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="default: every one that the pages have a table of")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--columns", default="means", choices=KINDS_OF_COLUMNS)
    parser.add_argument("--first", metavar="STUDY/ROW", help="a row of another study, above all others")
    parser.add_argument("--folder", type=Path, default=HERE / "studies", help="where the study files are")
    add_places(parser)
    parser.add_argument("--print", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    asked = {
        name_of(study, split, columns): (study, split, columns)
        for study in arguments.studies or sorted(path.stem for path in arguments.folder.glob("*.yaml"))
        for split in ([arguments.split] if arguments.studies else SPLITS)
        for columns in ([arguments.columns] if arguments.studies else KINDS_OF_COLUMNS)
    }
    if not arguments.studies:
        asked = {name: asked[name] for name in tables_of(arguments.page) if name in asked}
    for name, (study, split, columns) in asked.items():
        rows = rows_of(arguments.folder / f"{study}.yaml", arguments.results, arguments.first, split)
        fixed = {"means": COLUMNS, "anatomy": ANATOMY, "cost": COST}
        text = table(rows, split, fixed.get(columns) or classes(rows, split))
        print(text)
        if not arguments.print:
            replace_table(arguments.page, name, text)


if __name__ == "__main__":
    main()
