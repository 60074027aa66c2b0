"""From what ``crispseg compare`` wrote to the table of differences with their intervals.

    python -m experiments.differences place-conv OUT/compare.json      # writes table compare-place-conv of the page
    python -m experiments.differences fcn ONE/compare.json OTHER/compare.json       # trainings compared in two parts
    python -m experiments.differences summary --page README.md         # the short table, from what is kept

Each file is kept as ``results/compare/NAME.json``, further ones as ``NAME-2.json`` and so on.

**Parts.** Trainings whose counts are lost cannot be resampled together with later ones, but their values stand. So the
difference is that of all trainings, the chance in training is seen from all of them, and the choice of images from
those parts whose counts are kept (:mod:`crispseg.evaluation.intervals` has the sum). Where no part has such counts, the
difference and its interval are the means of the parts', weighted by trainings.

**Older files**, made before intervals were made of both, hold percentiles of a bootstrap; the table says so.

Not here: making comparisons (``crispseg compare``), tables of rows (``experiments.table``).
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from crispseg.evaluation import Noise, combine
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
OLDER = "Intervals of the older kind (percentiles), since the counts were not kept"
COSTS = {"M parameters": ("parameters", 1e6), "GFLOPs": ("flops", 1e9)}
"""Not the latency: where studies are compared, something trains."""
SUMMARY = {
    "CamVid 240×180, FPN on EfficientNet-Lite0": "tuned",
    "CamVid 240×180, FCN on EfficientNet-Lite0": "fcn-tuned",
    "ECSSD, FPN on EfficientNet-Lite0": "ecssd",
}
"""What the short table shows: on which images and host, and the name of the comparison with nothing."""
DEFAULT = "central"
"""The contender of the short table: S ≡ 1, which ``attach`` uses unless it is told."""


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
    lines += [line([title, *(_words(pooled(parts, n, metric)) for n in names)]) for title, metric in METRICS.items()]
    costs, foot = first.get("costs"), ""
    if costs:
        lines += [line([title, *(_cost(costs["of"], first["baseline"], n, title) for n in names)]) for title in COSTS]
        foot = f" Operations: {costs['at'].split(' on ')[0].lower()}."
    made = ", ".join(f"{tree['environment']['commit']} on {_machine(tree)}" for tree in parts)
    lines.append(
        f"\nPoints, with 95 % intervals, on {sides[2]} images in {groups} groups; {_trainings(parts)} "
        f"`crispseg compare` at {made}.{foot}"
    )
    return "\n".join(lines)


def summary(results: Path) -> str:
    """The short table: a line a host, S ≡ 1 in front of the head against no neck and against the control."""

    def parts(name: str) -> list[Result]:
        paths = [results / "compare" / f"{name}.json", *sorted(results.glob(f"compare/{name}-[0-9].json"))]
        return [json.loads(path.read_text()) for path in paths]

    head = ["", "boundary F 1 px", "over a plain convolution there", "mIoU", "GFLOPs"]
    lines = [line(head), "|---|" + "---:|" * (len(head) - 1)]
    for title, name in SUMMARY.items():
        none, conv = parts(name), parts(f"{name}-conv")
        cells = [
            _words(pooled(none, DEFAULT, "boundary_f_1")),
            _words(pooled(conv, DEFAULT, "boundary_f_1")),
            _words(pooled(none, DEFAULT, "miou")),
            _cost(none[0]["costs"]["of"], none[0]["baseline"], DEFAULT, "GFLOPs"),
        ]
        lines.append(line([title, *cells]))
    return "\n".join(lines)


def _trainings(parts: Sequence[Result]) -> str:
    if len(parts) == 1:
        tree = parts[0]
        of = ", ".join(f"{name} {found['trainings']}" for name, found in tree["contenders"].items())
        return " ".join([f"trainings: {of}.", *tree["caveats"][:1], *([] if counted(parts) else [_older(tree)])])
    counts = [trainings(tree) for tree in parts]
    said = f"{sum(counts)} trainings of each, compared in parts of {' and '.join(map(str, counts))}: "
    if not counted(parts):
        return f"{said}means of the parts' differences and intervals. {_older(parts[0])}"
    kept = sum(trainings(tree) for tree in counted(parts))
    return f"{said}the chance in training is seen from all, the choice of images from the {kept} whose counts are kept."


def _older(tree: Result) -> str:
    several = max(found["trainings"] for found in tree["contenders"].values()) > 1
    return OLDER + (": too narrow over few trainings." if several else ".")


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
    parser.add_argument("files", nargs="*", type=Path, metavar="compare.json")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    arguments = parser.parse_args()
    if arguments.name == "summary":
        replace_table(arguments.page, "summary", summary(arguments.results))
        return
    if not arguments.files:
        parser.error("give the compare.json that crispseg compare wrote")
    parts = [json.loads(path.read_text()) for path in arguments.files]
    text = table(parts)
    for number, tree in enumerate(parts, start=1):
        write_json(arguments.results / "compare" / f"{arguments.name}{'' if number == 1 else f'-{number}'}.json", tree)
    replace_table(arguments.page, f"compare-{arguments.name}", text)
    print(text)


if __name__ == "__main__":
    main()
