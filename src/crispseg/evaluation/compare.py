"""The comparison itself: evaluations of several contenders in, differences with intervals and a verdict in words out.

Both sides of a difference are means over the same classes, those in the truth of what is averaged: of the set, of a
bootstrap sample, of a single image. A class that is predicted and nowhere true costs what its pixels cost the true
classes. What a contender scores by itself follows the field: there such a class counts 0.

Not here: making the evaluations (``contenders``), what they must have in common (``comparable``), how intervals are
made (``intervals``), the page (``crispseg.report.compare``).
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from crispseg.evaluation.bootstrap import Counts, group_images, paired_bootstrap
from crispseg.evaluation.comparable import Sides, check
from crispseg.evaluation.intervals import Estimate, Side, effective_groups, estimate, groups_of_means, holm, noise_of
from crispseg.evaluation.suite import Evaluation, Metrics, plain
from crispseg.evaluation.verdict import Difference, caveats, verdict

KEYS = ("iou", "boundary_f")
SHOWN = 3
"""How many images of each kind (largest wins, largest losses) are named."""


def compare(sides: Sides, *, group: str | None = None, samples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compare every contender with the first one, the baseline.

    A difference is called better or worse if so large a one comes about by chance in fewer than 5 % of cases, for all
    differences of its family together (Holm). Each contender has three families: the three metrics of the verdict, the
    other metrics, the class table.

    Parameters
    ----------
    sides
        Name to evaluations, one a training; all of the same images, truth, classes and settings.
    group
        Regular expression on image names: images with the same match are resampled together
        (:func:`crispseg.evaluation.bootstrap.group_images`).
    samples, seed
        Of the bootstrap.

    Returns
    -------
    dict
        What ``compare.json`` holds, values in 0–1: ``contenders`` (each metric with its interval, every training's
        value, classes, those nowhere true, error anatomy of all trainings together), ``differences`` (to the baseline,
        with interval, corrected p and verdict), ``verdicts`` (sentences), ``caveats``, ``images`` (where each wins and
        loses most), ``bootstrap``. None: not to be measured, or too few images for an interval.

    Raises
    ------
    UsageError
        Fewer than two sides, sides of different images, truths, classes or settings, a training given twice, or a
        ``group`` that does not fit the names; the message says what differs.
    """
    first = check(sides)
    metrics = first.metrics
    decisive = decisive_metrics(metrics)
    numbers, keys = group_images(first.names, group)
    weight = torch.zeros(len(keys), len(first.classes), dtype=torch.float64)
    weight.index_add_(0, numbers, first.counts["region"][:, 2].double())
    groups, class_groups = groups_of_means(weight), effective_groups(weight)

    def measure(counts: Counts) -> dict[str, Tensor]:
        return {**metrics.headline(counts, true_only=True), **_per_class(metrics, counts, true_only=True)}

    replicates = paired_bootstrap(
        [[run.counts for run in runs] for runs in sides.values()], numbers, measure, samples=samples, seed=seed
    )
    found = {
        name: {m: Side(_stack([measure(run.totals())[m] for run in runs]), drawn[m]) for m in drawn}
        for (name, runs), drawn in zip(sides.items(), replicates)
    }
    baseline, *others = sides
    head = list(metrics.headline(first.totals()))
    trainings = {name: len(runs) for name, runs in sides.items()}
    strays = {name: _nowhere_true(runs) for name, runs in sides.items()}
    differences = {}
    for name in others:
        of = {m: estimate(found[name][m], found[baseline][m], groups=groups) for m in head}
        differences[name] = _called(of, (decisive, [m for m in head if m not in decisive]))
    return {
        "baseline": baseline,
        "decisive": decisive,
        "verdicts": {
            name: verdict(
                name,
                baseline,
                [differences[name][m][0] for m in decisive],
                trainings=(trainings[name], trainings[baseline]),
            )
            for name in others
        },
        "caveats": caveats([*trainings.values()], len(keys), float(groups), group is not None, strays),
        "differences": {
            name: {
                **{
                    m: difference.as_json(networks=_networks(trainings, name, baseline))
                    | {"image_variance": plain(float(of.image_variance))}
                    for m, (difference, of) in differences[name].items()
                },
                "per_class": _class_differences(
                    found[name], found[baseline], first.classes, class_groups, _networks(trainings, name, baseline)
                ),
            }
            for name in others
        },
        "contenders": {
            name: _contender(runs, found[name], head, groups) | {"nowhere_true": strays[name]}
            for name, runs in sides.items()
        },
        "images": {name: _extremes(sides[name], sides[baseline], decisive[-1]) for name in others},
        "classes": list(first.classes),
        "settings": first.summary()["settings"],
        "groups_weigh_as": plain(float(groups)),
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


def _per_class(metrics: Metrics, counts: Counts, *, true_only: bool = False) -> dict[str, Tensor]:
    tolerance = sorted(range(len(metrics.boundary_f.tolerances)), key=metrics.boundary_f.tolerances.__getitem__)
    middle = tolerance[len(tolerance) // 2]
    iou = metrics.region_iou(counts["region"])
    f = metrics.boundary_f.ratios(counts["boundary_f"])[..., 0, middle, :]
    if true_only:
        iou = iou.where(counts["region"][..., 2, :] > 0, torch.nan)
        f = f.where(counts["boundary_f"][..., 1, -1, :] > 0, torch.nan)
    return {"class_iou": iou, "class_boundary_f": f}


def _stack(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).double()


def _networks(trainings: Mapping[str, int], *pair: str) -> bool:
    """One training each: what differs are two networks, whatever their methods."""
    return max(trainings[name] for name in pair) == 1


def _called(
    estimates: Mapping[str, Estimate], families: Sequence[Sequence[str]]
) -> dict[str, tuple[Difference, Estimate]]:
    """Each difference with the chance of it, corrected within its family."""
    chance: dict[str, Tensor] = {}
    for family in families:
        chance |= zip(family, holm(torch.stack([estimates[m].p for m in family])))
    return {
        m: (Difference(m, float(of.value), float(of.low), float(of.high), float(chance[m])), of)
        for m, of in estimates.items()
    }


def _class_differences(
    mine: Mapping[str, Side], theirs: Mapping[str, Side], classes: Sequence[str], groups: Tensor, networks: bool
) -> dict[str, dict[str, Any]]:
    """Both metrics of every class, one family: a reader who looks for the one that stands out looks at all."""
    of = {m: estimate(mine[m], theirs[m], groups=groups) for m in ("class_iou", "class_boundary_f")}
    chance = holm(torch.cat([one.p for one in of.values()])).view(len(of), -1)
    out: dict[str, dict[str, Any]] = {name: {} for name in classes}
    for (m, one), p in zip(of.items(), chance):
        for name, *numbers in zip(classes, one.value.tolist(), one.low.tolist(), one.high.tolist(), p.tolist()):
            out[name][m.removeprefix("class_")] = Difference(m, *numbers).as_json(networks=networks)
    return out


def _contender(
    runs: Sequence[Evaluation], found: Mapping[str, Side], head: Sequence[str], groups: Tensor
) -> dict[str, Any]:
    own = [run.metrics.headline(run.totals()) for run in runs]
    rows = {}
    for m in head:
        values = _stack([row[m] for row in own])
        # Its own value follows the convention; samples use the true classes, so that a stray pixel is no class.
        side = Side(values, found[m].replicates)
        of, noise = estimate(side, groups=groups), noise_of(side, groups)
        rows[m] = {
            "mean": plain(float(of.value)),
            "low": plain(float(of.low)),
            "high": plain(float(of.high)),
            "trainings": [plain(float(value)) for value in values],
            "by_images": plain(float(noise.by_images)),
        }
    by_class = [_per_class(run.metrics, run.totals()) for run in runs]
    classes = {
        name: {key: plain(float(_stack([row[f"class_{key}"] for row in by_class]).nanmean(0)[c])) for key in KEYS}
        for c, name in enumerate(runs[0].classes)
    }
    anatomies = [run.anatomy for run in runs if run.anatomy is not None]
    summary = reduce(add, anatomies).summary(runs[0].classes, trainings=len(anatomies)) if anatomies else None
    anatomy = {"anatomy": summary} if summary else {}
    return {"trainings": len(runs), "metrics": rows, "per_class": classes, **anatomy}


def _nowhere_true(runs: Sequence[Evaluation]) -> dict[str, float]:
    """The classes that are predicted and nowhere true, with the pixels given to them, in the mean over trainings."""
    _, predicted, true = torch.stack([run.totals()["region"] for run in runs]).double().mean(0)
    return {name: float(p) for name, p, t in zip(runs[0].classes, predicted, true) if p > 0 and t == 0}


def _extremes(runs: Sequence[Evaluation], baseline: Sequence[Evaluation], metric: str) -> dict[str, Any]:
    """The images in which a contender gains and loses most on the baseline, by a metric, means over trainings."""
    mine, theirs = (
        torch.stack([run.per_image(true_only=True)[metric] for run in side]).nanmean(0) for side in (runs, baseline)
    )
    gain = (mine - theirs).tolist()
    ranked = sorted((value, name) for value, name in zip(gain, runs[0].names) if value == value)

    def rows(pairs: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
        return [{"name": name, "difference": value} for value, name in pairs]

    return {
        "metric": metric,
        "wins": rows([pair for pair in ranked[::-1] if pair[0] > 0][:SHOWN]),
        "losses": rows([pair for pair in ranked if pair[0] < 0][:SHOWN]),
    }
