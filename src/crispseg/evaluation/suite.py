"""The whole suite of metrics over a data set, with the integers of every image kept.

An :class:`Evaluation` is names and integers only. Scores of the set, of one image, or of a bootstrap sample are made
from them by the same functions, after summing.

Not here: where maps come from (``sources``), resampling (``bootstrap``), files (``counts``).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crispseg.evaluation.anatomy import Anatomy, anatomy_counts
from crispseg.metrics.base import ALL, Inside
from crispseg.metrics.boundary_f import TOLERANCES, BoundaryFScore
from crispseg.metrics.boundary_iou import BoundaryIoU
from crispseg.metrics.labels import codes
from crispseg.metrics.miou import MeanIoU, overlap, region_ratios
from crispseg.metrics.scores import mean_present
from crispseg.metrics.trimap import RADII, TrimapIoU

Maps = Iterable[tuple[str, Tensor, Tensor]]
"""(name, prediction, truth), label maps (H, W) of one size, integer."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured: tolerances and radii in px, the width of Boundary IoU's band, whether the border counts."""

    tolerances: tuple[float, ...] = TOLERANCES
    radii: tuple[int, ...] = RADII
    width: int | None = None
    ratio: float = 0.02
    border: bool = True

    def metrics(self, num_classes: int, ignore_index: int | None) -> "Metrics":
        """Return the four metrics with these settings."""
        return Metrics(
            region=MeanIoU(num_classes, ignore_index),
            boundary_iou=BoundaryIoU(num_classes, ignore_index, width=self.width, ratio=self.ratio, border=self.border),
            boundary_f=BoundaryFScore(num_classes, ignore_index, tolerances=self.tolerances),
            trimap=TrimapIoU(num_classes, ignore_index, radii=self.radii),
        )


@dataclass(frozen=True)
class Metrics:
    """The four metrics of the suite, used for their functions of counts; none holds a state here."""

    region: MeanIoU
    boundary_iou: BoundaryIoU
    boundary_f: BoundaryFScore
    trimap: TrimapIoU

    def counts(self, pred: Tensor, target: Tensor, inside: Inside = ALL) -> dict[str, Tensor]:
        """Return the integers of one image, by metric, from its codes (1, H, W), of the pixels ``inside`` alone."""
        return {
            "region": overlap(self.region.count_codes(pred, target, inside))[0],
            "boundary_iou": self.boundary_iou.count_codes(pred, target, inside)[0],
            "boundary_f": self.boundary_f.count_codes(pred, target, inside)[0],
            "trimap": self.trimap.count_codes(pred, target, inside)[0],
        }

    def region_iou(self, counts: Tensor) -> Tensor:
        """Return the IoU of each class, (…, C), from the counts of ``region`` (…, 3, C)."""
        return region_ratios(counts)[..., :-1]

    def headline(self, counts: Mapping[str, Tensor], *, true_only: bool = False) -> dict[str, Tensor]:
        """Return the numbers that sum a model up, by name, from counts with any leading dimensions (…).

        Means over classes are the field's: a class in neither map is left out, in one map only it counts 0, so *which*
        classes are averaged depends on the prediction. ``true_only``: over the classes in the truth of what was
        counted, the same for every prediction; what two models are compared by. Of a class that is predicted and
        nowhere true, its pixels are then errors of the true classes and nothing else.
        """
        region, band = region_ratios(counts["region"]), self.boundary_iou.ratios(counts["boundary_iou"])
        f = self.boundary_f.ratios(counts["boundary_f"])[..., 0, :, :]
        trimap = self.trimap.ratios(counts["trimap"])
        classes = region[..., :-1]
        if true_only:
            classes = classes.where(counts["region"][..., 2, :] > 0, torch.nan)
            band = band.where(counts["boundary_iou"][..., 2, :] > 0, torch.nan)
            f = f.where(counts["boundary_f"][..., 1, -1:, :] > 0, torch.nan)
            trimap = trimap.where(counts["trimap"][..., 2, :] > 0, torch.nan)
        boundary, near = mean_present(f), mean_present(trimap)
        return {
            "miou": mean_present(classes),
            "pixel_accuracy": region[..., -1],
            "boundary_iou": mean_present(band),
            **{f"boundary_f_{t:g}": boundary[..., i] for i, t in enumerate(self.boundary_f.tolerances)},
            **{f"trimap_iou_{r}": near[..., i] for i, r in enumerate(self.trimap.radii)},
        }


@dataclass(frozen=True)
class Evaluation:
    """The integers of every image of a data set; ``counts[metric]`` is (N, …) int64, in the order of ``names``."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    ignore_index: int | None
    settings: Settings
    counts: Mapping[str, Tensor] = field(repr=False)
    anatomy: Anatomy | None = field(default=None, repr=False)

    @property
    def metrics(self) -> Metrics:
        """The metrics that made the counts."""
        return self.settings.metrics(len(self.classes), self.ignore_index)

    def totals(self) -> dict[str, Tensor]:
        """Return the counts summed over images, int64."""
        return {name: counts.sum(0, dtype=torch.int64) for name, counts in self.counts.items()}

    def headline(self) -> dict[str, float]:
        """Return the numbers that sum the set up; NaN where nothing could be measured."""
        return {name: float(value) for name, value in self.metrics.headline(self.totals()).items()}

    def per_image(self, *, true_only: bool = False) -> dict[str, Tensor]:
        """Return the same numbers of every image by itself, (N,); ``true_only`` as in :meth:`Metrics.headline`."""
        counts = {name: table.to(torch.int64) for name, table in self.counts.items()}
        return self.metrics.headline(counts, true_only=true_only)

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON knows it: values in 0–1, None where a class was in neither map."""
        m, totals = self.metrics, self.totals()
        region = region_ratios(totals["region"])[:-1]
        band = m.boundary_iou.scores(totals["boundary_iou"])
        f = m.boundary_f.scores(totals["boundary_f"])
        trimap = m.trimap.scores(totals["trimap"])
        tolerances, radii = [f"{t:g}" for t in self.settings.tolerances], [str(r) for r in self.settings.radii]
        head = self.headline()
        return {
            "images": len(self.names),
            "classes": list(self.classes),
            "miou": plain(head["miou"]),
            "pixel_accuracy": plain(head["pixel_accuracy"]),
            "boundary_iou": plain(head["boundary_iou"]),
            "boundary_f": {t: plain(v) for t, v in zip(tolerances, f["boundary_f"].tolist())},
            "trimap_iou": {r: plain(v) for r, v in zip(radii, trimap["trimap_iou"].tolist())},
            "per_class": {
                name: {
                    "iou": plain(region[c].item()),
                    "boundary_iou": plain(band["per_class"][c].item()),
                    "boundary_f": {t: plain(v) for t, v in zip(tolerances, f["per_class"][:, c].tolist())},
                    "trimap_iou": {r: plain(v) for r, v in zip(radii, trimap["per_class"][:, c].tolist())},
                    "true_pixels": int(totals["region"][2, c]),
                    "true_boundary_pixels": int(totals["boundary_f"][1, -1, c]),
                }
                for c, name in enumerate(self.classes)
            },
            "absent": [self.classes[c] for c in region.isnan().nonzero().flatten().tolist()],
            "settings": {
                "boundary_iou": {
                    "width": self.settings.width if self.settings.width else f"{self.settings.ratio:g} of the diagonal",
                    "border": self.settings.border,
                },
                "boundary_f_tolerances": list(self.settings.tolerances),
                "trimap_radii": list(self.settings.radii),
                "ignore_index": self.ignore_index,
            },
            **({"anatomy": self.anatomy.summary(self.classes)} if self.anatomy is not None else {}),
        }


def suite(
    maps: Maps,
    classes: Sequence[str],
    ignore_index: int | None = 255,
    *,
    settings: Settings | None = None,
    anatomy: bool = True,
) -> Evaluation:
    """Measure predictions against truths, image by image, with every metric and, unless declined, the error anatomy.

    Parameters
    ----------
    maps
        (name, prediction, truth) of each image, label maps (H, W) of one size; read one at a time.
    classes
        The names of classes 0 … C − 1.
    ignore_index
        The label of void.
    settings
        Widths, tolerances, radii; None: :class:`Settings` as it stands.
    anatomy
        Also say what kind of error each wrong pixel is (:mod:`crispseg.evaluation.anatomy`).

    Returns
    -------
    Evaluation
        With ``summary()``, ``headline()``, ``per_image()``; a few hundred integers an image are kept.

    Raises
    ------
    ValueError
        No image at all, a name given twice, or maps that do not fit (the message names the image).

    Examples
    --------
    >>> truth = torch.tensor([[0, 0, 0, 1, 1, 1]])
    >>> result = suite([("a", torch.tensor([[0, 0, 1, 1, 1, 1]]), truth)], ["sky", "road"])
    >>> round(result.headline()["miou"], 3), result.summary()["boundary_f"]["1"]
    (0.708, 1.0)
    """
    settings = settings or Settings()
    metrics = settings.metrics(len(classes), ignore_index)
    names: list[str] = []
    rows: list[dict[str, Tensor]] = []
    errors = Anatomy.zeros(len(classes)) if anatomy else None
    for name, pred, target in maps:
        try:
            if target.ndim != 2:
                raise ValueError(f"expected one label map (H, W) an image, found shape {tuple(target.shape)}")
            p, t = codes(pred, target, len(classes), ignore_index)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from error
        rows.append({key: counts.to("cpu", torch.int64) for key, counts in metrics.counts(p, t).items()})
        names.append(name)
        if errors is not None:
            errors = errors + anatomy_counts(p, t, len(classes), d=metrics.boundary_iou.width_of(*t.shape[-2:]))
    if not names:
        raise ValueError("there is no image to measure")
    if len(set(names)) < len(names):
        raise ValueError(f"each image needs its own name, found {next(n for n in names if names.count(n) > 1)!r} twice")
    counts = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return Evaluation(tuple(names), tuple(classes), ignore_index, settings, counts, errors)


def plain(value: float) -> float | None:
    """A number as JSON has it: NaN, "nothing to measure", is None."""
    return None if math.isnan(value) else value
