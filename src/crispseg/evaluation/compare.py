"""The comparison itself: evaluations of several contenders in, differences with intervals and a verdict in words out.

Not here: making the evaluations (``contenders``), the page (``crispseg.report.compare``).
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from operator import add
from typing import Any

import torch
from torch import Tensor

from crispseg.errors import UsageError
from crispseg.evaluation.bootstrap import Counts, group_images, interval, paired_bootstrap
from crispseg.evaluation.suite import Evaluation, Metrics, plain
from crispseg.evaluation.verdict import Difference, caveats, verdict

Sides = Mapping[str, Sequence[Evaluation]]
SHOWN = 3
"""How many images of each kind (largest wins, largest losses) are named."""


def compare(sides: Sides, *, group: str | None = None, samples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compare every contender with the first one, the baseline.

    Parameters
    ----------
    sides
        Name to evaluations, one a training; all of the same images, classes and settings.
    group
        Regular expression on image names: images with the same match are resampled together
        (:func:`crispseg.evaluation.bootstrap.group_images`).
    samples, seed
        Of the bootstrap.

    Returns
    -------
    dict
        What ``compare.json`` holds, values in 0–1: ``contenders`` (each metric with its interval, every training's
        value, classes, error anatomy), ``differences`` (to the baseline, with interval and verdict), ``verdicts``
        (sentences), ``caveats``, ``images`` (where each wins and loses most), ``bootstrap``.

    Raises
    ------
    UsageError
        Fewer than two sides, sides of different images, or a ``group`` that does not fit the names.
    """
    first = _check(sides)
    metrics = first.metrics
    decisive = decisive_metrics(metrics)
    numbers, keys = group_images(first.names, group)

    def measure(counts: Counts) -> dict[str, Tensor]:
        return {**metrics.headline(counts), **_per_class(metrics, counts)}

    totals = {name: [measure(run.totals()) for run in runs] for name, runs in sides.items()}
    replicates = paired_bootstrap(
        [[run.counts for run in runs] for runs in sides.values()], numbers, measure, samples=samples, seed=seed
    )
    baseline, *others = sides
    head = list(metrics.headline(first.totals()))
    differences = {
        name: {metric: _difference(metric, name, baseline, list(sides), totals, replicates) for metric in head}
        for name in others
    }
    trainings = [len(runs) for runs in sides.values()]
    return {
        "baseline": baseline,
        "decisive": decisive,
        "verdicts": {name: verdict(name, baseline, [differences[name][m] for m in decisive]) for name in others},
        "caveats": caveats(trainings, len(keys), group is not None, len(others) * len(head)),
        "differences": {
            name: {
                **{metric: difference.as_json() for metric, difference in row.items()},
                "per_class": _class_differences(name, baseline, sides, totals, replicates),
            }
            for name, row in differences.items()
        },
        "contenders": {
            name: _contender(name, at, runs, totals[name], replicates, head)
            for at, (name, runs) in enumerate(sides.items())
        },
        "images": {name: _extremes(sides[name], sides[baseline], decisive[-1]) for name in others},
        "classes": list(first.classes),
        "bootstrap": {
            "samples": samples,
            "seed": seed,
            "images": len(first.names),
            "groups": len(keys),
            "group": group,
        },
    }


def decisive_metrics(metrics: Metrics) -> list[str]:
    """The metrics that a verdict is about: mIoU, Boundary IoU, and boundary F at the middle tolerance."""
    tolerances = sorted(metrics.boundary_f.tolerances)
    return ["miou", "boundary_iou", f"boundary_f_{tolerances[len(tolerances) // 2]:g}"]


def _check(sides: Sides) -> Evaluation:
    if len(sides) < 2:
        raise UsageError(f"a comparison needs two contenders, found {len(sides)}")
    baseline, (first, *_) = next(iter(sides.items()))
    for name, runs in sides.items():
        for mine, theirs in ((_measured(run), _measured(first)) for run in runs):
            for what, parts in mine.items():
                for a, b in zip_longest(parts, theirs[what]):
                    if a != b:
                        raise UsageError(
                            f"{name} was not measured on the same {what} as {baseline}: expected {b}, found {a}"
                        )
    return first


def _measured(run: Evaluation) -> dict[str, tuple[Any, ...]]:
    """What must be alike in all that is compared."""
    return {"images": run.names, "classes": run.classes, "void": (run.ignore_index,), "settings": (run.settings,)}


def _per_class(metrics: Metrics, counts: Counts) -> dict[str, Tensor]:
    tolerance = sorted(range(len(metrics.boundary_f.tolerances)), key=metrics.boundary_f.tolerances.__getitem__)
    middle = tolerance[len(tolerance) // 2]
    return {
        "class_iou": metrics.region_iou(counts["region"]),
        "class_boundary_f": metrics.boundary_f.ratios(counts["boundary_f"])[..., 0, middle, :],
    }


def _mean(rows: Sequence[Mapping[str, Tensor]], metric: str) -> Tensor:
    return torch.stack([row[metric] for row in rows]).nanmean(0)


def _difference(
    metric: str, name: str, baseline: str, order: list[str], totals: Any, replicates: Mapping[str, Tensor]
) -> Difference:
    value = _mean(totals[name], metric) - _mean(totals[baseline], metric)
    low, high = interval(replicates[metric][order.index(name)] - replicates[metric][order.index(baseline)])
    return Difference(metric, float(value), float(low), float(high))


def _class_differences(
    name: str, baseline: str, sides: Sides, totals: Any, replicates: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    order, classes = list(sides), sides[name][0].classes
    out: dict[str, dict[str, Any]] = {c: {} for c in classes}
    for metric in ("class_iou", "class_boundary_f"):
        value = _mean(totals[name], metric) - _mean(totals[baseline], metric)
        low, high = interval(replicates[metric][order.index(name)] - replicates[metric][order.index(baseline)])
        for c, title in enumerate(classes):
            difference = Difference(metric, float(value[c]), float(low[c]), float(high[c]))
            out[title][metric.removeprefix("class_")] = difference.as_json()
    return out


def _contender(
    name: str,
    at: int,
    runs: Sequence[Evaluation],
    totals: Sequence[Mapping[str, Tensor]],
    replicates: Mapping[str, Tensor],
    head: Sequence[str],
) -> dict[str, Any]:
    rows = {}
    for metric in head:
        low, high = interval(replicates[metric][at])
        rows[metric] = {
            "mean": plain(float(_mean(totals, metric))),
            "low": plain(float(low)),
            "high": plain(float(high)),
            "trainings": [plain(float(row[metric])) for row in totals],
        }
    classes = {
        title: {key: plain(float(_mean(totals, f"class_{key}")[c])) for key in ("iou", "boundary_f")}
        for c, title in enumerate(runs[0].classes)
    }
    anatomies = [run.anatomy for run in runs if run.anatomy is not None]
    anatomy = {"anatomy": reduce(add, anatomies).summary(runs[0].classes)} if anatomies else {}
    return {"trainings": len(runs), "metrics": rows, "per_class": classes, **anatomy}


def _extremes(runs: Sequence[Evaluation], baseline: Sequence[Evaluation], metric: str) -> dict[str, Any]:
    """The images in which a contender gains and loses most on the baseline, by a metric, means over trainings."""
    mine, theirs = (torch.stack([run.per_image()[metric] for run in side]).nanmean(0) for side in (runs, baseline))
    gain = (mine - theirs).tolist()
    ranked = sorted((value, name) for value, name in zip(gain, runs[0].names) if value == value)

    def rows(pairs: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
        return [{"name": name, "difference": value} for value, name in pairs]

    return {
        "metric": metric,
        "wins": rows([pair for pair in ranked[::-1] if pair[0] > 0][:SHOWN]),
        "losses": rows([pair for pair in ranked if pair[0] < 0][:SHOWN]),
    }
