"""What a difference with its interval means, in words that can say "no evidence".

Not here: the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crispseg.evaluation.suite import plain

NAMES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_iou": "Boundary IoU"}


@dataclass(frozen=True)
class Difference:
    """One metric of one contender less that of the baseline, with its 95 % interval, in 0–1."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or −1 if the interval lies on one side of zero, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def as_json(self) -> dict[str, Any]:
        """The difference as ``compare.json`` has it."""
        return {
            "difference": plain(self.value),
            "low": plain(self.low),
            "high": plain(self.high),
            "verdict": {1: "better", -1: "worse", 0: "no evidence of a difference"}[self.sign],
        }


def title(metric: str) -> str:
    """The name of a metric for people.

    >>> title("boundary_f_3"), title("miou")
    ('boundary F at 3 px', 'mIoU')
    """
    for prefix, words in (("boundary_f_", "boundary F at {} px"), ("trimap_iou_", "trimap IoU within {} px")):
        if metric.startswith(prefix):
            return words.format(metric.removeprefix(prefix))
    return NAMES.get(metric, metric)


def verdict(name: str, baseline: str, differences: Sequence[Difference]) -> str:
    """Return one or two sentences on whether ``name`` is better than ``baseline``, from the metrics that decide it.

    >>> verdict("sdn", "none", [Difference("miou", 0.004, -0.002, 0.011)])
    'No evidence that sdn is better or worse than none: mIoU +0.4 points [−0.2, +1.1].'
    >>> verdict("sdn", "none", [Difference("miou", 0.004, 0.002, 0.011), Difference("boundary_iou", 0, -0.1, 0.1)])
    'sdn is better than none on mIoU +0.4 points [+0.2, +1.1];
     no evidence either way on Boundary IoU +0.0 points [−10.0, +10.0].'
    """
    if name == baseline or not differences:
        raise ValueError("a verdict needs two names and at least one difference")
    up, down, open_ = ([d for d in differences if d.sign == sign] for sign in (1, -1, 0))
    if not up and not down:
        return f"No evidence that {name} is better or worse than {baseline}: {_list(open_)}."
    parts = [f"better than {baseline} on {_list(up)}"] if up else []
    parts += [f"worse {'' if up else f'than {baseline} '}on {_list(down)}"] if down else []
    sentence = f"{name} is {' and '.join(parts)}"
    return sentence + (f"; no evidence either way on {_list(open_)}." if open_ else ".")


def caveats(trainings: Sequence[int], groups: int, grouped: bool, comparisons: int) -> list[str]:
    """Return what the intervals do not cover, for people to read beside them."""
    out = []
    if min(trainings) == 1:
        out.append(
            "One training of a contender is one throw of the dice: the intervals cover the choice of images, not the "
            "chance in training. Compare several seeds before believing a small difference."
        )
    elif min(trainings) < 5:
        out.append(f"With {min(trainings)} trainings the chance in training is known only roughly.")
    if groups < 20:
        out.append(f"Only {groups} {'groups' if grouped else 'images'} to resample: intervals from so few are rough.")
    if not grouped:
        out.append("Images were resampled one by one. If some are neighbours (frames of a video), use --group.")
    if comparisons > 1:
        out.append(f"{comparisons} differences with 95 % each: by chance alone about one in twenty would exclude zero.")
    return out


def points(value: float) -> str:
    """A difference in points (hundredths), signed.

    >>> points(0.0123), points(-0.002)
    ('+1.2', '−0.2')
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(
        f"{title(d.metric)} {points(d.value)} points [{points(d.low)}, {points(d.high)}]" for d in differences
    )
