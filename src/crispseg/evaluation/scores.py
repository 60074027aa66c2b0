"""Class scores from anywhere, as .npy or .npz files of (K, H, W): their labels, refined or not, beside the truth.

Not here: reading a file (``crispseg.data.scores``), masks and runs (``sources``), what refining is
(``crispseg.refinement``).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from crispseg.data import ClassSet, read_image, read_label
from crispseg.data.samples import by_name, files_below
from crispseg.data.scores import SCORES, read_scores
from crispseg.errors import DataError, UsageError
from crispseg.evaluation.sources import MASKS, MaskPair
from crispseg.refinement import Refiner, refine


def holds_scores(folder: str | Path) -> bool:
    """Whether a folder's predictions are scores: it holds files of them, and no masks."""
    suffixes = {path.suffix.lower() for path in files_below(Path(folder))}
    return bool(suffixes & SCORES) and not suffixes & MASKS


def score_maps(
    pairs: Iterable[MaskPair],
    classes: ClassSet,
    *,
    refiner: Refiner | None = None,
    images: str | Path | None = None,
    kind: Literal["logits", "probabilities"] = "logits",
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, prediction, truth) of each pair, the prediction from scores, refined with the picture of its name.

    Raises ``UsageError`` if the pictures are not there, ``DataError``, naming the file, for a bad one.
    """
    pictures: dict[str, Path] = {}
    if refiner is not None:
        if images is None or not Path(images).is_dir():
            raise UsageError(f"refined with what? expected a folder of pictures, found {images or 'none'}")
        pictures = by_name(Path(images), lambda name: name)
    for pair in pairs:
        scores, label = read_scores(pair.pred, len(classes)), read_label(pair.label, classes)
        if scores.shape[1:] != label.shape:
            (h, w), (label_h, label_w) = scores.shape[1:], label.shape
            raise DataError(f"{pair.pred}: expected the size of {pair.label}, {label_w}×{label_h}, found {w}×{h}")
        if refiner is not None:
            if pair.name not in pictures:
                raise DataError(f"{images}: expected a picture {pair.name}, the one of {pair.pred}, found none")
            try:
                scores = refine(scores, read_image(pictures[pair.name]), refiner, kind=kind)
            except (ValueError, FloatingPointError) as error:
                raise DataError(f"{pair.pred}: cannot be refined: {error}") from error
        yield pair.name, scores.argmax(0).to(torch.uint8), label
