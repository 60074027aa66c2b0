"""The gate: an exported file against PyTorch **at the boundary**, on real pictures, mask against mask.

Exports break at borders first: a resize that is off by half a pixel, an argmax before the resize. The pixels inside do
not show it, so that the mean difference of logits, or the share of equal pixels, lets it pass. Nor does boundary F at
1 px see half a pixel, since no border moves by more than 1; at 0 px it does.

Not here: what is exported (``writing``), how (``formats``).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from crispseg.metrics.boundary_f import BoundaryFScore
from crispseg.metrics.regions import contour

SAME = {0.0: 0.99, 1.0: 0.999}
"""What boundary F between both masks has to be for fp32, by its tolerance in px."""
CHANGED = 0.001
"""The largest share of changed pixels for fp32: a class that is another everywhere moves no border."""
LOUD = 0.005
"""A loss of boundary F at 1 px above which a file of fewer bits is warned of."""
CUTS = 4
"""Pictures that are also seen at other sizes, where the file takes any."""
Mask = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """A picture to be judged on, uint8 (3, H, W), and its true labels uint8 (H, W), if they are known."""

    name: str
    image: Tensor
    label: Tensor | None = field(default=None)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far the masks of an exported file are from PyTorch's.

    Parameters
    ----------
    views, sizes
        How many pictures and cuts of pictures were seen, and how many different sizes they had.
    boundary_f
        Boundary F between both masks, mean over the classes, at 0 and 1 px.
    changed
        Share of the pixels that have another class.
    shift
        The largest distance in px of a border pixel to the nearest border of its class in the other mask.
    lost
        How often a class is in one mask of a view alone.
    border
        How many border pixels PyTorch's masks have: what all of it is judged on.
    truth
        Boundary F at 1 px against the labels, where there are any: of ``pytorch`` and of the ``file``.
    worst
        The view with the most changed pixels.
    """

    views: int
    sizes: int
    boundary_f: dict[str, float]
    changed: float
    shift: float
    lost: int
    border: int
    truth: dict[str, float] = field(default_factory=dict)
    worst: str = ""

    @property
    def fails(self) -> str:
        """What an fp32 file falls short of; nothing if it is the same."""
        short = [
            f"boundary F between both masks at {t:g} px is {found:.4f}, expected at least {least}"
            for t, least in SAME.items()
            if not (found := self.boundary_f[f"{t:g}"]) >= least
        ]
        if self.changed > CHANGED:
            short.append(f"{100 * self.changed:.2f} % of the pixels changed, expected at most {100 * CHANGED} %")
        return "; ".join(short)

    @property
    def loss(self) -> float:
        """What the file loses in boundary F at 1 px: against the labels, or without any, against PyTorch's masks."""
        return self.truth["pytorch"] - self.truth["file"] if self.truth else 1 - self.boundary_f["1"]

    def in_words(self) -> str:
        """The figures in one line."""
        f = ", ".join(f"{100 * value:.2f} % at {t} px" for t, value in self.boundary_f.items())
        lost = f", {self.lost} times a class in one mask alone" if self.lost else ""
        text = (
            f"between both masks: boundary F {f}; {100 * self.changed:.4f} % of the pixels changed; largest shift of a "
            f"border {self.shift:.1f} px{lost} ({self.views} views of {self.sizes} sizes)"
        )
        if self.truth:
            t = {who: f"{100 * value:.2f} %" for who, value in self.truth.items()}
            text += f"; against the labels at 1 px: PyTorch {t['pytorch']}, the file {t['file']}"
        return text

    def as_json(self) -> dict[str, Any]:
        """The figures, for the file's metadata."""
        return asdict(self)


def judge(reference: Mask, candidate: Mask, views: Iterable[View], num_classes: int, ignore_index: int) -> Verdict:
    """Return how far the masks of ``candidate`` are from those of ``reference``, both functions of a picture.

    >>> step = torch.arange(8).ge(4).long().expand(6, 8)
    >>> half = torch.arange(8).ge(5).long().expand(6, 8)
    >>> verdict = judge(lambda x: step, lambda x: half, [View("a", torch.zeros(3, 6, 8))], 2, 255)
    >>> verdict.boundary_f, verdict.shift, bool(verdict.fails)
    ({'0': 0.0, '1': 1.0}, 1.0, True)
    """
    between = BoundaryFScore(num_classes, None, tolerances=tuple(SAME))
    truth = {who: BoundaryFScore(num_classes, ignore_index, tolerances=(1,)) for who in ("pytorch", "file")}
    changed = pixels = lost = labelled = views_seen = border = 0
    shift, worst, most = 0.0, "", 0.0
    sizes = set()
    for view in views:
        expected, found = reference(view.image), candidate(view.image)
        if expected.shape != found.shape:
            raise ValueError(f"{view.name}: masks of two sizes, {tuple(expected.shape)} and {tuple(found.shape)}")
        between.update(found[None].long(), expected[None].long())
        wrong = int((expected != found).sum())
        moved, alone = shifts(expected, found)
        shift, lost = max(shift, moved), lost + alone
        border += int(contour(expected[None].to(torch.uint8) + 1).count_nonzero())
        changed, pixels, views_seen = changed + wrong, pixels + expected.numel(), views_seen + 1
        sizes.add(tuple(expected.shape))
        if wrong / expected.numel() > most:
            worst, most = view.name, wrong / expected.numel()
        if view.label is not None:
            labelled += 1
            truth["pytorch"].update(expected[None].long(), view.label[None].long())
            truth["file"].update(found[None].long(), view.label[None].long())
    if not views_seen:
        raise ValueError("there is no picture to judge on")
    f = between.compute()["boundary_f"].tolist()
    scores = {who: float(metric.compute()["boundary_f"]) for who, metric in truth.items()} if labelled else {}
    return Verdict(
        views=views_seen,
        sizes=len(sizes),
        boundary_f={f"{t:g}": 1.0 if math.isnan(value) else value for t, value in zip(SAME, f)},
        changed=changed / pixels,
        shift=shift,
        lost=lost,
        border=border,
        truth={} if any(map(math.isnan, scores.values())) else scores,
        worst=worst,
    )


def shifts(a: Tensor, b: Tensor) -> tuple[float, int]:
    """The largest distance of a border pixel to its class's border in the other mask, and the classes that have none.

    >>> a, b = torch.zeros(5, 9), torch.zeros(5, 9)
    >>> a[:, 3:], b[:, 5:] = 1, 1
    >>> shifts(a, b)
    (2.0, 0)
    """
    if torch.equal(a, b):
        return 0.0, 0
    edges = [contour(mask[None].to(torch.uint8) + 1)[0].numpy() for mask in (a, b)]
    largest, alone = 0.0, 0
    for c in np.union1d(*edges):
        ours, theirs = (edge == c for edge in edges)
        if c == 0 or np.array_equal(ours, theirs):
            continue
        if not (ours.any() and theirs.any()):
            alone += 1
            continue
        for here, there in ((ours, theirs), (theirs, ours)):
            largest = max(largest, float(ndimage.distance_transform_edt(~there)[here].max()))
    return largest, alone


def cuts(view: View) -> Iterator[View]:
    """Yield a view, and two cuts of it with odd sides: one a little smaller, one half as large."""
    yield view
    height, width = view.image.shape[-2:]
    for h, w in ((height - 1 - height % 2, width - 3 + width % 2), (height // 2 | 1, width // 2 | 1)):
        if 0 < h < height and 0 < w < width:
            label = None if view.label is None else view.label[:h, :w].contiguous()
            yield View(f"{view.name} cut to {w}×{h}", view.image[:, :h, :w].contiguous(), label)
