"""Masks of any size against their truths, by tiles: the counts are those of the whole map, in constant memory.

A tile is looked at with a margin that is as wide as any metric looks, and only the tile counts. Boundary IoU looks
furthest, d = 0.02 of the diagonal.

A trained run is measured as ``predict --large`` predicts. Where one whole pass fits too, what its windows leave at
their seams is measured against it.

Not here: the anatomy of errors, which needs whole segments; maps that fit the memory (``suite``).
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor

from crispseg.data import ClassSet, Sample
from crispseg.errors import DataError
from crispseg.evaluation.sources import MaskPair
from crispseg.evaluation.suite import Evaluation, Settings, plain
from crispseg.inference import Scenes, open_source, predict_large, predict_logits
from crispseg.inference.large import Place, Source, grid, placed
from crispseg.inference.predictor import LARGE
from crispseg.inference.rows import RowFile
from crispseg.inference.truths import Labels, open_labels
from crispseg.metrics.labels import codes
from crispseg.metrics.seams import NEAR, seam_counts, seam_scores
from crispseg.runs import Run

SIDE = 2048
"""Of a tile, px; with its margin it is larger."""
MAPS = frozenset({".png", ".tif", ".tiff"})
"""Suffixes of label maps of any size."""
Pair = tuple[str, Labels, Labels]


class Track(Protocol):
    """Shows how many of a picture's windows are done."""

    def __call__(self, places: Sequence[Place], /, what: str) -> Iterable[Place]: ...


def large_suite(
    pairs: Iterable[Pair],
    classes: Sequence[str],
    ignore_index: int | None = 255,
    *,
    settings: Settings | None = None,
    side: int = SIDE,
) -> Evaluation:
    """Measure predictions of any size against truths; the integers are those of :func:`crispseg.evaluation.suite`.

    Parameters
    ----------
    pairs
        (name, prediction, truth) of each picture; both are read by windows, one picture after the other.
    classes, ignore_index, settings
        As in :func:`crispseg.evaluation.suite`.
    side
        Of the square tiles that are counted at a time, in px. Held are a few bytes for each pixel of a tile and its
        margin; the counts do not depend on it.

    Returns
    -------
    Evaluation
        Without ``anatomy``.

    Raises
    ------
    ValueError
        No picture at all, or maps that do not fit (the message names the picture).
    """
    settings = settings or Settings()
    names, found = [], []
    for name, pred, truth in pairs:
        if (pred.height, pred.width) != (truth.height, truth.width):
            sizes = [f"{labels.width}×{labels.height}" for labels in (truth, pred)]
            raise ValueError(f"{name}: expected a prediction of {sizes[0]} pixels as its truth, found {sizes[1]}")
        try:
            found.append(large_counts(pred, truth, len(classes), ignore_index, settings, side))
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from error
        names.append(name)
    if not names:
        raise ValueError("there is no picture to measure")
    counts = {key: torch.stack([each[key] for each in found]) for key in found[0]}
    return Evaluation(tuple(names), tuple(classes), ignore_index, settings, counts)


def large_counts(
    pred: Labels, truth: Labels, num_classes: int, ignore_index: int | None, settings: Settings, side: int = SIDE
) -> dict[str, Tensor]:
    """Return the integers of one picture by metric, int64, tile by tile."""
    height, width = truth.height, truth.width
    d = settings.metrics(num_classes, ignore_index).boundary_iou.width_of(height, width)
    metrics = dataclasses.replace(settings, width=d).metrics(num_classes, ignore_index)
    # A boundary pixel is one by its neighbour, so a match within the tolerance looks one pixel further.
    margin = max(d, math.floor(max(settings.tolerances)) + 1, *settings.radii)
    total: dict[str, Tensor] = {}
    for (rows, down), (columns, across) in product(_tiles(height, side, margin), _tiles(width, side, margin)):
        p, t = codes(pred.read(rows, columns), truth.read(rows, columns), num_classes, ignore_index)
        for key, counts in metrics.counts(p, t, (down, across)).items():
            total[key] = total[key] + counts if key in total else counts
    return total


def _tiles(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Yield what is read along one side of a picture, and which part of that counts."""
    for start in range(0, length, side):
        first, last = max(0, start - margin), min(length, start + side + margin)
        yield slice(first, last), slice(start - first, min(start + side, length) - first)


def large_masks(pairs: Iterable[MaskPair], classes: ClassSet) -> Iterator[Pair]:
    """Yield (name, prediction, truth) of masks, PNG or TIFF, read by windows; DataError names a bad file."""
    for pair in pairs:
        yield pair.name, open_labels(pair.pred, classes), open_labels(pair.label, classes)


class LargeRun:
    """A trained run on large pictures: :meth:`pairs` predicts them by windows, :meth:`seams` says what these left.

    Parameters
    ----------
    run
        The trained run.
    samples, classes
        Pictures with their labels, and what these mean.
    seen
        Windows, and how a TIFF's values become colours.
    device, options
        As in :func:`crispseg.inference.predict_large`.
    whole
        Pixels up to which a picture is also predicted in one pass, to measure seams.
    """

    def __init__(
        self,
        run: Run,
        samples: Sequence[Sample],
        *,
        classes: ClassSet,
        seen: Scenes | None = None,
        device: str | torch.device = "cpu",
        whole: int = LARGE,
        track: Track = lambda places, what: places,
        **options: Any,
    ) -> None:
        self.samples, self.classes, self.device, self.whole = samples, classes, device, whole
        self.model, seen = run.model.to(device).eval(), seen or Scenes()
        self.window, self.overlap = placed(self.model, seen.window, seen.overlap, device)
        self._seen, self._track, self._options = seen, track, options
        self._counts: list[Tensor] = []

    def pairs(self) -> Iterator[Pair]:
        """Predict each picture and yield (name, prediction, truth); predictions lie on the disk while they are used."""
        with TemporaryDirectory() as folder:
            for number, sample in enumerate(self.samples):
                assert sample.label is not None
                source = open_source(sample.image, self._seen.bands, self._seen.limits)
                truth = open_labels(sample.label, self.classes, sample.mapping)
                if (source.height, source.width) != (truth.height, truth.width):
                    sizes = [f"{image.width}×{image.height}" for image in (source, truth)]
                    raise DataError(
                        f"{sample.label}: expected the size of {sample.image}, {sizes[0]}, found {sizes[1]}"
                    )
                rows = RowFile(Path(folder) / f"{number}.rows", source.height, source.width, {})
                try:
                    predict_large(
                        self.model,
                        source,
                        rows,
                        window=self.window,
                        overlap=self.overlap,
                        batch=self._seen.batch,
                        void=self.classes.ignore_index,
                        device=self.device,
                        track=partial(self._track, what=f"predicting {sample.name}"),
                        **self._options,
                    )
                    self._look_at_seams(source, rows)
                    yield sample.name, rows, truth
                finally:
                    rows.close()
                    rows.path.unlink()

    def seams(self) -> dict[str, Any] | None:
        """What :func:`crispseg.metrics.seam_difference` says of all pictures together; None if no whole pass fitted.

        NaN is None, as JSON has it. ``pictures`` is how many of them had seams and fitted.
        """
        if not self._counts:
            return None
        found = seam_scores(torch.cat(self._counts))
        numbers = {key: plain(found[key]) for key in ("near", "elsewhere", "difference")}
        pairs = {key: [plain(value) for value in found[key]] for key in ("interval", "boundary_f")}
        seen = {"window": list(self.window), "overlap": self.overlap, "pictures": len(self._counts)}
        return {**numbers, **pairs, "pixels": list(found["pixels"]), "cells": found["cells"], "d": NEAR, **seen}

    def _look_at_seams(self, source: Source, rows: RowFile) -> None:
        whole = slice(0, source.height), slice(0, source.width)
        down, across = (
            [
                (upper.stop + lower.start) // 2
                for upper, lower in pairwise(span.counted() for span in grid(length, side, self.overlap))
            ]
            for length, side in zip((source.height, source.width), self.window)
        )
        if source.height * source.width > self.whole or not (down or across):
            return
        logits = predict_logits(self.model, source.read(*whole).to(self.device), **self._options)
        labels, void = logits.argmax(0).cpu(), source.void(*whole)
        if void is not None:
            labels = labels.masked_fill(void, self.classes.ignore_index)
        self._counts.append(
            seam_counts(rows.read(*whole), labels, down, across, len(self.classes), self.classes.ignore_index)
        )
