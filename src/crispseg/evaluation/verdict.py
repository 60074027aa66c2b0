"""What a difference with its interval means, in words that can say "no evidence", and what they do not cover.

Not here: the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crispseg.evaluation.suite import plain

NAMES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_iou": "Boundary IoU"}
CALLED = 0.05
"""The largest chance of any false call in a family: one contender's decisive metrics, its others, or its class table.

Other contenders are not counted in: of several, each is called as if it were the only one, and a caveat says so."""


@dataclass(frozen=True)
class Difference:
    """One metric of one contender less that of the baseline, with its 95 % interval, in 0–1.

    ``p``: the chance of one as large, were there none, corrected for the number of differences beside it
    (:func:`crispseg.evaluation.intervals.holm`). NaN, as ``low`` and ``high``, where there are too few images to say.
    """

    metric: str
    value: float
    low: float
    high: float
    p: float

    @property
    def sign(self) -> int:
        """1 or −1 if the difference is called one, else 0."""
        return 0 if math.isnan(self.p) or self.p >= CALLED else 1 if self.value > 0 else -1

    def as_json(self, *, networks: bool = False) -> dict[str, Any]:
        """The difference as ``compare.json`` has it; ``networks``: of two networks, which says nothing of methods."""
        if math.isnan(self.p):
            words = "no verdict"
        elif networks:
            words = "these networks differ" if self.sign else "no evidence of a difference"
        else:
            words = {1: "better", -1: "worse", 0: "no evidence of a difference"}[self.sign]
        numbers = {"difference": self.value, "low": self.low, "high": self.high, "p": self.p}
        return {**{key: plain(number) for key, number in numbers.items()}, "verdict": words}


def title(metric: str) -> str:
    """The name of a metric for people.

    >>> title("boundary_f_3"), title("miou")
    ('boundary F at 3 px', 'mIoU')
    """
    for prefix, words in (("boundary_f_", "boundary F at {} px"), ("trimap_iou_", "trimap IoU within {} px")):
        if metric.startswith(prefix):
            return words.format(metric.removeprefix(prefix))
    return NAMES.get(metric, metric)


def verdict(name: str, baseline: str, differences: Sequence[Difference], *, trainings: tuple[int, int]) -> str:
    """Return a sentence on whether ``name`` is better than ``baseline``, from the metrics that decide it.

    ``trainings``: how many there are of each. One each shows how two networks differ, not two methods. What could not
    be measured, and images that are too few, are said.

    >>> verdict("sdn", "none", [Difference("miou", 0.004, -0.002, 0.011, 0.2)], trainings=(3, 3))
    'No evidence that sdn is better or worse than none: mIoU +0.4 points [−0.2, +1.1].'
    >>> verdict("sdn", "none", [Difference("miou", 0.004, 0.002, 0.011, 0.01)], trainings=(1, 1))
    'sdn and none: these two networks differ by mIoU +0.4 points [+0.2, +1.1]; one training each cannot tell the
     methods apart.'
    """
    if name == baseline or not differences:
        raise ValueError("a verdict needs two names and at least one difference")
    measured = [d for d in differences if not math.isnan(d.value)]
    lost = [title(d.metric) for d in differences if math.isnan(d.value)]
    foot = f" Not to be measured here: {', '.join(lost)}." if lost else ""
    if not measured:
        return f"No verdict on {name} and {baseline}.{foot}"
    if all(math.isnan(d.p) for d in measured):
        return (
            f"No verdict on {name} and {baseline}, which differ by {_list(measured)}: one image, or one group of "
            f"images, does not say how others would come out.{foot}"
        )
    up, down, open_ = ([d for d in measured if d.sign == sign] for sign in (1, -1, 0))
    if max(trainings) == 1:
        sure = "these two networks differ by" if up or down else "no evidence that these two networks differ:"
        return (
            f"{name} and {baseline}: {sure} {_list(measured)}; one training each cannot tell the methods apart.{foot}"
        )
    if not up and not down:
        return f"No evidence that {name} is better or worse than {baseline}: {_list(open_)}.{foot}"
    parts = [f"better than {baseline} on {_list(up)}"] if up else []
    parts += [f"worse {'' if up else f'than {baseline} '}on {_list(down)}"] if down else []
    sentence = f"{name} is {' and '.join(parts)}"
    return sentence + (f"; no evidence either way on {_list(open_)}." if open_ else ".") + foot


def caveats(
    trainings: Sequence[int], groups: int, weigh_as: float, grouped: bool, strays: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return what the numbers do not cover, for people to read beside them.

    ``weigh_as``: how many groups of equal size would tell as much; ``strays``: of each contender the classes that it
    predicts and that are nowhere true, with the number of pixels.
    """
    out = []
    if max(trainings) == 1:
        out.append(
            "Each contender has one training: the intervals cover the choice of images, not the randomness of "
            "training. Compare several seeds before you believe a small difference."
        )
    elif min(trainings) == 1:
        out.append(
            "Some contenders have one training. Compared with several, it is assumed to vary as they do; compared "
            "with one, the interval covers the choice of images alone."
        )
    elif min(trainings) < 5:
        out.append(f"With {min(trainings)} trainings the randomness of training is known only roughly.")
    things = "groups" if grouped else "images"
    if groups < 20:
        out.append(f"Only {groups} {things} to resample: intervals from so few are rough.")
    elif weigh_as < 20:
        out.append(f"The {groups} {things} are of very unequal size and count as {weigh_as:.0f} equal ones.")
    if not grouped:
        out.append("Images were resampled one by one. If some are neighbours (frames of a video), use --group.")
    if len(trainings) > 2:
        out.append(
            f"{len(trainings) - 1} contenders are compared with the first, each as if it were the only one: the more "
            "there are, the more likely one is called better or worse by chance."
        )
    for name, found in strays.items():
        if found:
            listed = ", ".join(f"{c} ({pixels:.0f} px)" for c, pixels in found.items())
            out.append(
                f"{name} predicts classes that are nowhere true: {listed}. Differences are means over the true "
                f"classes, where these pixels count as errors; in {name}'s own means such a class counts 0."
            )
    return out


def points(value: float) -> str:
    """A difference in points (hundredths), signed.

    >>> points(0.0123), points(-0.002)
    ('+1.2', '−0.2')
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(
        f"{title(d.metric)} {points(d.value)} points"
        + ("" if math.isnan(d.low) else f" [{points(d.low)}, {points(d.high)}]")
        for d in differences
    )
