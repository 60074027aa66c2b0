"""From what ``crispseg compare`` wrote to the table of differences with their intervals.

    python -m experiments.differences place-conv OUT/compare.json      # writes table compare-place-conv of the page
    python -m experiments.differences fcn ONE/compare.json OTHER/compare.json       # trainings compared in two parts

Each file is kept as ``results/compare/NAME.json``, further ones as ``NAME-2.json`` and so on.

**Parts.** Trainings whose counts are lost cannot be resampled together with later ones, but both comparisons stand. The
difference over all is the mean of the parts', weighted by trainings, and so is its interval: right if the parts erred
together, as they do by the choice of images, and too wide as far as they do not, as by the chance in training.

Not here: making comparisons (``crispseg compare``), tables of rows (``experiments.table``).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from crispseg.files import write_json
from experiments.table import HERE, Result, line, replace_table

METRICS = {
    "mIoU": "miou",
    "boundary F 1 px": "boundary_f_1",
    "3 px": "boundary_f_3",
    "5 px": "boundary_f_5",
    "Boundary IoU": "boundary_iou",
    "trimap IoU 3 px": "trimap_iou_3",
}
COSTS = {"M parameters": ("parameters", 1e6), "GFLOPs": ("flops", 1e9)}
"""Not the latency: where studies are compared, something trains."""


def trainings(tree: Result) -> int:
    """How many trainings each contender of a part has; SystemExit if not all have as many, or one alone."""
    counts = {found["trainings"] for found in tree["contenders"].values()}
    if len(counts) > 1 or 1 in counts:  # of one training the interval does not hold the chance in training
        raise SystemExit(f"parts of a comparison need as many trainings of each contender, 2 at least, found {counts}")
    return int(counts.pop())


def pooled(parts: Sequence[Result], name: str, metric: str) -> dict[str, float]:
    """``difference``, ``low`` and ``high`` of one contender over all parts: their means, weighted by trainings."""
    if len(parts) == 1:
        return dict(parts[0]["differences"][name][metric])
    weights = [trainings(tree) for tree in parts]
    found = [tree["differences"][name][metric] for tree in parts]
    keys = ("difference", "low", "high")
    return {k: sum(w * part[k] for w, part in zip(weights, found, strict=True)) / sum(weights) for k in keys}


def table(parts: Sequence[Result]) -> str:
    """The Markdown table: each contender minus the baseline, with its interval, in points."""
    first = parts[0]
    sides = (first["baseline"], list(first["contenders"]), first["bootstrap"]["images"], first["bootstrap"]["groups"])
    for tree in parts[1:]:
        bootstrap = tree["bootstrap"]
        if (tree["baseline"], list(tree["contenders"]), bootstrap["images"], bootstrap["groups"]) != sides:
            raise SystemExit(f"parts of a comparison need the same contenders and images, found other than {sides}")
    names = list(first["differences"])
    lines = [line(["", *(f"{name} − {first['baseline']}" for name in names)]), "|---|" + "---:|" * len(names)]
    lines += [line([title, *(_words(pooled(parts, n, metric)) for n in names)]) for title, metric in METRICS.items()]
    costs, foot = first.get("costs"), ""
    if costs:
        lines += [line([title, *(_cost(costs["of"], first["baseline"], n, title) for n in names)]) for title in COSTS]
        foot = f" Operations: {costs['at'].split(' on ')[0].lower()}."
    made = ", ".join(f"{tree['environment']['commit']} on {_machine(tree)}" for tree in parts)
    lines.append(
        f"\nPoints, with 95 % intervals, on {sides[2]} images in {sides[3]} groups; {_trainings(parts)} "
        f"`crispseg compare` at {made}.{foot}"
    )
    return "\n".join(lines)


def _trainings(parts: Sequence[Result]) -> str:
    if len(parts) == 1:
        of = ", ".join(f"{name} {found['trainings']}" for name, found in parts[0]["contenders"].items())
        return f"trainings: {of}. {parts[0]['caveats'][0] if parts[0]['caveats'] else ''}"
    counts = [trainings(tree) for tree in parts]
    return (
        f"{sum(counts)} trainings of each, compared in parts of {' and '.join(map(str, counts))}: means of the parts' "
        "differences and intervals, which err on the wide side."
    )


def _machine(tree: Result) -> str:
    machine = tree["environment"]["machine"]
    return str(machine["gpu"] or machine["processor"])


def _cost(of: Result, baseline: str, name: str, title: str) -> str:
    key, unit = COSTS[title]
    return " → ".join(f"{of[side][key] / unit:.2f}" for side in (baseline, name))


def _words(found: dict[str, float]) -> str:
    words = "{difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    return words.format(**{key: 100 * found[key] for key in ("difference", "low", "high")}).replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the comparison")
    parser.add_argument("files", nargs="+", type=Path, metavar="compare.json")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    arguments = parser.parse_args()
    parts = [json.loads(path.read_text()) for path in arguments.files]
    text = table(parts)
    for number, tree in enumerate(parts, start=1):
        write_json(arguments.results / "compare" / f"{arguments.name}{'' if number == 1 else f'-{number}'}.json", tree)
    replace_table(arguments.page, f"compare-{arguments.name}", text)
    print(text)


if __name__ == "__main__":
    main()
