"""From what ``crispseg compare`` wrote to the table of differences with their intervals.

    python -m experiments.differences place-conv OUT/compare.json      # keeps it, writes table compare-place-conv
    python -m experiments.differences fcn ONE/compare.json OTHER/compare.json       # trainings compared in two parts
    python -m experiments.differences                                  # every table of differences, from what is kept

Each file is kept in ``results/compare.jsonl.gz`` as ``NAME``, further ones as ``NAME-2`` and so on.

**Parts.** Trainings whose counts are lost cannot be resampled together with later ones, but their values stand. So the
difference is that of all trainings, the chance in training is seen from all of them, and the choice of images from
those parts whose counts are kept (:mod:`crispseg.evaluation.intervals` has the sum). Where no part has such counts, the
difference and its interval are the means of the parts', weighted by trainings.

**Older files**, made before intervals were made of both, hold percentiles of a bootstrap; the table says so.

Not here: making comparisons (``crispseg compare``), tables of rows (``experiments.table``), the short tables of
results.md and README (``experiments.questions``).
"""

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from crispseg.evaluation import Noise, combine
from experiments import kept
from experiments.kept import Result
from experiments.table import add_places, line, replace_table, tables_of

METRICS = {
    "mIoU": "miou",
    "boundary F 1 px": "boundary_f_1",
    "3 px": "boundary_f_3",
    "5 px": "boundary_f_5",
    "Boundary IoU": "boundary_iou",
    "trimap IoU 3 px": "trimap_iou_3",
}
OLDER = "Percentile intervals, because the counts were not kept"
COSTS = {"M parameters": ("parameters", 1e6), "GFLOPs": ("flops", 1e9)}
"""Not the latency: where studies are compared, something trains."""
MANY = re.compile(r"(\d+) differences with 95 % each: by chance alone about one in twenty would exclude zero\.")
"""What older comparisons say of their number; the tables say it in plainer words."""
PREFIX = "compare-"
"""Of the name of a table of differences in a page."""


def trainings(tree: Result) -> int:
    """How many trainings each contender of a part has; SystemExit if not all have as many, or one alone."""
    counts = {found["trainings"] for found in tree["contenders"].values()}
    if len(counts) > 1 or 1 in counts:  # of one training the interval does not hold the chance in training
        raise SystemExit(f"parts of a comparison need as many trainings of each contender, 2 at least, found {counts}")
    return int(counts.pop())


def counted(parts: Sequence[Result]) -> list[Result]:
    """Those of the parts that say how the choice of images spreads: made from counts, by today's intervals."""
    return [tree for tree in parts if "groups_weigh_as" in tree]


def pooled(parts: Sequence[Result], name: str, metric: str) -> dict[str, float]:
    """``difference``, ``low`` and ``high`` of one contender over all parts."""
    if len(parts) == 1:
        return dict(parts[0]["differences"][name][metric])
    weights = [trainings(tree) for tree in parts]
    if not counted(parts):
        found = [tree["differences"][name][metric] for tree in parts]
        keys = ("difference", "low", "high")
        return {k: sum(w * part[k] for w, part in zip(weights, found, strict=True)) / sum(weights) for k in keys}
    total, sides = sum(weights), (name, parts[0]["baseline"])
    known = [(trainings(tree), tree) for tree in counted(parts)]
    images = 0.0
    by_images = dict.fromkeys(sides, 0.0)
    for count, tree in known:
        share = count / sum(n for n, _ in known)
        own = {side: tree["contenders"][side]["metrics"][metric]["by_images"] for side in sides}
        # What images do to each training by itself is averaged away by more trainings, what they do to a side is not.
        both = tree["differences"][name][metric]["image_variance"] - sum(own.values()) / count
        images += share * (max(0.0, both) + sum(own.values()) / total)
        by_images = {side: by_images[side] + share * own[side] for side in sides}
    noise, means = [], []
    for side in sides:
        values = [v for tree in parts for v in tree["contenders"][side]["metrics"][metric]["trainings"]]
        noise.append(Noise(total, _number(statistics.variance(values)), _number(by_images[side])))
        means.append(statistics.mean(values))
    groups = sum(n * tree["groups_weigh_as"] for n, tree in known) / sum(n for n, _ in known)
    of = combine(_number(means[0] - means[1]), _number(images), noise, _number(groups))
    return {"difference": float(of.value), "low": float(of.low), "high": float(of.high)}


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def table(parts: Sequence[Result]) -> str:
    """The Markdown table: each contender minus the baseline, with its interval, in points."""
    first = parts[0]
    sides = (first["baseline"], list(first["contenders"]), first["bootstrap"]["images"])
    for tree in parts[1:]:
        if (tree["baseline"], list(tree["contenders"]), tree["bootstrap"]["images"]) != sides:
            raise SystemExit(f"parts of a comparison need the same contenders and images, found other than {sides}")
    groups = (counted(parts) or parts)[0]["bootstrap"]["groups"]
    names = list(first["differences"])
    lines = [line(["", *(f"{name} − {first['baseline']}" for name in names)]), "|---|" + "---:|" * len(names)]
    lines += [line([title, *(points(pooled(parts, n, metric)) for n in names)]) for title, metric in METRICS.items()]
    costs, foot = first.get("costs"), ""
    if costs:
        lines += [line([title, *(cost(costs["of"], first["baseline"], n, title) for n in names)]) for title in COSTS]
        foot = f" Operations: {costs['at'].split(' on ')[0].lower()}."
    made = ", ".join(f"{tree['environment']['commit']} on {_machine(tree)}" for tree in parts)
    lines.append(
        f"\nPoints, with 95 % intervals, on {sides[2]} images in {groups} groups; {_trainings(parts)} "
        f"`crispseg compare` at {made}.{foot}"
    )
    return "\n".join(lines)


def names_of(name: str) -> list[str]:
    """The names under which the parts of a comparison are kept, nine at most."""
    return [name, *(f"{name}-{number}" for number in range(2, 10))]


def parts_of(results: Path, name: str) -> list[Result]:
    """The parts of a comparison that are kept; SystemExit if there are none."""
    entries = kept.read(results, "compare")
    if not (parts := [entries[key] for key in names_of(name) if key in entries]):
        raise SystemExit(f"{results}: no comparison {name!r} is kept; crispseg compare makes them")
    return parts


def _trainings(parts: Sequence[Result]) -> str:
    if len(parts) == 1:
        tree = parts[0]
        of = ", ".join(f"{name} {found['trainings']}" for name, found in tree["contenders"].items())
        notes = [MANY.sub(_by_chance, caveat) for caveat in tree["caveats"][:1]]
        return " ".join([f"trainings: {of}.", *notes, *([] if counted(parts) else [_older(tree)])])
    counts = [trainings(tree) for tree in parts]
    said = f"{sum(counts)} trainings of each, compared in parts of {' and '.join(map(str, counts))}: "
    if not counted(parts):
        return f"{said}means of the parts' differences and intervals. {_older(parts[0])}"
    known = sum(trainings(tree) for tree in counted(parts))
    return f"{said}training noise is estimated from all, the choice of images from the {known} whose counts are kept."


def _by_chance(found: re.Match[str]) -> str:
    return f"Of {found[1]} such intervals about {int(found[1]) / 20:.0f} would exclude zero by chance."


def _older(tree: Result) -> str:
    several = max(found["trainings"] for found in tree["contenders"].values()) > 1
    return OLDER + (": too narrow for few trainings." if several else ".")


def _machine(tree: Result) -> str:
    machine = tree["environment"]["machine"]
    return str(machine["gpu"] or machine["processor"])


def cost(of: Result, baseline: str, name: str, title: str) -> str:
    """One of COSTS, without → with."""
    key, unit = COSTS[title]
    return " → ".join(f"{of[side][key] / unit:.2f}" for side in (baseline, name))


def points(found: dict[str, float]) -> str:
    """A difference with its interval, in points."""
    words = "{difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    return words.format(**{key: 100 * found[key] for key in ("difference", "low", "high")}).replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of the comparison; default: every one that the pages have a table of")
    parser.add_argument("files", nargs="*", type=Path, metavar="compare.json", help="default: what is kept")
    add_places(parser)
    arguments = parser.parse_args()
    if arguments.files:
        parts = [json.loads(path.read_text()) for path in arguments.files]
        table(parts)  # parts that do not fit each other are not kept
        kept.put(arguments.results, "compare", **dict(zip_longest(names_of(arguments.name), parts)))
    there = [name.removeprefix(PREFIX) for name in tables_of(arguments.page) if name.startswith(PREFIX)]
    for name in [arguments.name] if arguments.name else there:
        text = table(parts_of(arguments.results, name))
        replace_table(arguments.page, PREFIX + name, text)
        print(text)


if __name__ == "__main__":
    main()
