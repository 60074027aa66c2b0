"""From run folders to a table: evaluate each run, keep the numbers as JSON, write the Markdown table into a document.

    python -m experiments.table camvid-half runs/camvid-half-* --split test --label-size 180 240 --page docs/results.md

The JSON of each run goes to ``experiments/results/PROTOCOL/RUN.json``; the table is made from these files alone and
replaces what stands between ``<!-- table PROTOCOL -->`` and ``<!-- /table -->``. ``--no-evaluate`` remakes the table
from the files that are there.

Not here: training (``crispseg train``), differences with an interval (``crispseg compare``).
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from crispseg.data import find_samples
from crispseg.evaluation import run_maps, suite
from crispseg.files import write_json, write_text
from crispseg.runs import environment, load_run

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "mIoU": lambda r: r["miou"],
    "boundary F 1 px": lambda r: r["boundary_f"]["1"],
    "3 px": lambda r: r["boundary_f"]["3"],
    "5 px": lambda r: r["boundary_f"]["5"],
    "Boundary IoU": lambda r: r["boundary_iou"],
    "trimap IoU 3 px": lambda r: r["trimap_iou"]["3"],
}


def measure(path: Path, split: str, label_size: tuple[int, int] | None) -> dict[str, Any]:
    """Evaluate the run in ``path`` on a split of its own data set."""
    run = load_run(path)
    data, model, training = run.config.data, run.config.model, json.loads((path / "metrics.json").read_text())
    samples, classes = find_samples(data.root, split, data.layout)
    result = suite(run_maps(run, samples, label_size=label_size), classes.names, classes.ignore_index).summary()
    return {
        "run": path.name,
        "neck": model.neck,
        "placement": "–" if model.neck == "none" else model.placement,
        "seed": run.config.seed,
        "split": split,
        "label_size": label_size,
        "training": {**training, **json.loads((path / "environment.json").read_text())},
        "evaluation": environment(),
        "result": result,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of ``rows``: values in %, then what each run cost and where it ran."""
    head = ["neck", "placement", "seed", *COLUMNS, "parameters", "training", "commit"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 3 + "---:|" * len(COLUMNS) + "---:|---:|---|"]
    for row in sorted(rows, key=lambda r: (r["neck"] != "none", r["placement"], r["neck"], r["seed"])):
        training = row["training"]
        values = [f"{100 * column(row['result']):.1f}" for column in COLUMNS.values()]
        cost = [f"{training['parameters'] / 1e6:.2f} M", f"{training['seconds'] / 60:.0f} min", training["commit"]]
        lines.append("| " + " | ".join([row["neck"], row["placement"], str(row["seed"]), *values, *cost]) + " |")
    machine = rows[0]["training"]["machine"]
    where = f"{machine['gpu'] or machine['processor']}, {machine['threads']} thread(s) a run"
    split, images = rows[0]["split"], rows[0]["result"]["images"]
    lines.append(f"\nValues in %, on the {images} images of {split}; best checkpoint chosen on val. Machine: {where}.")
    return "\n".join(lines)


def replace_table(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the markers of table ``name`` in ``page``."""
    pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    content, count = pattern.subn(lambda m: m[1] + text + "\n" + m[2], page.read_text())
    if count != 1:
        raise SystemExit(f"{page}: expected one pair of markers <!-- table {name} --> … <!-- /table -->, found {count}")
    write_text(page, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--label-size", type=int, nargs=2)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--no-evaluate", action="store_true")
    arguments = parser.parse_args()
    folder = RESULTS / arguments.protocol
    if not arguments.no_evaluate:
        size = tuple(arguments.label_size) if arguments.label_size else None
        for path in arguments.runs:
            write_json(folder / f"{path.name}.json", measure(path, arguments.split, size))
            print(folder / f"{path.name}.json")
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    text = table(rows)
    print(text)
    if arguments.page:
        replace_table(arguments.page, arguments.protocol, text)


if __name__ == "__main__":
    main()
