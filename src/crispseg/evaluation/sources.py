"""Where predictions and truths come from: two folders of masks, or a trained run and a data set. One image at a time.

Not here: what is measured (``suite``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from crispseg.data import (
    ClassSet,
    Sample,
    default_palette,
    read_classes,
    read_label,
    read_pair,
    resize_image,
    resize_label,
)
from crispseg.data.images import open_picture
from crispseg.data.samples import by_name
from crispseg.data.transforms import Size
from crispseg.errors import DataError, UsageError
from crispseg.inference import label_map
from crispseg.runs import Run

MASKS = frozenset({".png"})


@dataclass(frozen=True)
class MaskPair:
    """A prediction and its truth, two PNG files of class indices under one name."""

    name: str
    pred: Path
    label: Path


def mask_pairs(
    pred: str | Path, label: str | Path, suffixes: frozenset[str] = MASKS, truths: frozenset[str] = MASKS
) -> list[MaskPair]:
    """Return the masks below two folders that have the same path without suffix, sorted by name.

    ``suffixes``: of the predictions; ``truths``: of the labels. Raises ``UsageError`` if a folder is missing,
    ``DataError`` if one holds no PNG or a mask has no partner.
    """
    found = []
    for folder, known in ((Path(pred), suffixes), (Path(label), truths)):
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: expected a folder of masks, found {'a file' if folder.exists() else 'nothing'}"
            )
        masks = by_name(folder, lambda name: name, known)
        if not masks:
            raise DataError(f"{folder}: expected masks as PNG files, found none")
        found.append(masks)
    predictions, labels = found
    for have, lack, kind, partner, place, suffix in (
        (labels, predictions, "label", "prediction", pred, min(suffixes)),
        (predictions, labels, "prediction", "label", label, min(truths)),
    ):
        missing = sorted(have.keys() - lack.keys())
        if missing:
            more = f"; {len(missing)} {kind}s have none" if len(missing) > 1 else ""
            raise DataError(
                f"{have[missing[0]]}: {kind} without {partner}; expected {Path(place) / missing[0]}{suffix}{more}"
            )
    return [MaskPair(name, predictions[name], labels[name]) for name in sorted(labels)]


def mask_maps(
    pairs: Iterable[MaskPair], classes: ClassSet, *, as_annotator: bool = False, size: Size | None = None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, prediction, truth) of each pair, read and checked.

    ``as_annotator``: the prediction is another person's truth; what that person left void counts nowhere either.
    ``size``: (height, width) to which both maps are brought (nearest), for a protocol at another size than the files
    have. Raises ``DataError``, naming the files, for a bad mask or two sizes: none is fitted to the other.
    """
    for pair in pairs:
        pred, label = read_label(pair.pred, classes), read_label(pair.label, classes)
        if pred.shape != label.shape:
            (h, w), (label_h, label_w) = pred.shape, label.shape
            raise DataError(f"{pair.pred}: expected the size of {pair.label}, {label_w}×{label_h}, found {w}×{h}")
        if size is not None:
            pred, label = resize_label(pred, size), resize_label(label, size)
        if as_annotator:
            label = label.masked_fill(pred == classes.ignore_index, classes.ignore_index)
        yield pair.name, pred, label


def run_maps(
    run: Run,
    samples: Iterable[Sample],
    *,
    classes: ClassSet | None = None,
    device: Any = "cpu",
    label_size: Size | None = None,
    **options: Any,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, prediction, truth) of each sample, predicted by a trained run, at the label's own resolution.

    ``classes``: what the data set's labels mean (the same names, but maybe other colours and void); default: the run's.
    ``label_size``: (height, width) to which image (bilinear) and label (nearest) are brought first, for a protocol such
    as camvid-half that is defined at another size than the files have.
    ``options``: refiner, window, stride, scales, flip of :func:`crispseg.inference.label_map`. Raises ``DataError`` for
    a bad file.
    """
    model = run.model.to(device)
    for sample in samples:
        image, label = read_pair(sample, classes or run.classes)
        if label_size is not None:
            image, label = resize_image(image, label_size), resize_label(label, label_size)
        yield sample.name, predict_label(run, image, model=model, device=device, name=sample.image, **options), label


def predict_label(run: Run, image: Tensor, *, model: Any = None, device: Any = "cpu", **options: Any) -> Tensor:
    """Return the label map uint8 (H, W) that a run predicts for an image uint8 (3, H, W), seen as it was trained."""
    network = model or run.model.to(device)
    return label_map(network, image, size=run.config.data.size, device=device, **options)


def classes_of(
    *folders: str | Path, file: str | Path | None = None, num_classes: int | None = None, ignore_index: int = 255
) -> ClassSet:
    """Return the classes that folders of masks speak of.

    From ``file``, a classes.json; or ``num_classes`` without names, in the colours of the first palette PNG in the
    folders; or the classes.json in one of the folders or up to two levels above (``labels/<split>`` has it there).
    Raises ``UsageError`` if none of these says what the classes are.
    """
    if file is not None:
        return read_classes(file)
    if num_classes is not None:
        if not 1 <= num_classes <= 255:
            raise UsageError(f"--num-classes must be 1 to 255, found {num_classes}")
        names = tuple(f"class {c}" for c in range(num_classes))
        return ClassSet(names, _palette(folders, num_classes), ignore_index)
    for folder in folders:
        at = Path(folder).resolve()
        for place in (at, at.parent, at.parent.parent):
            if (place / "classes.json").is_file():
                return read_classes(place / "classes.json")
    raise UsageError(
        f"what are the classes? expected a classes.json in or above {folders[0]}, or --classes FILE, or --num-classes K"
    )


def _palette(folders: Sequence[str | Path], num_classes: int) -> tuple[tuple[int, int, int], ...]:
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.png"))[:1]:
            with open_picture(path) as picture:
                flat = (picture.getpalette("RGB") or []) if picture.mode == "P" else []
            if flat:
                flat = flat[: 3 * num_classes] + [0] * (3 * num_classes - len(flat))
                return tuple((flat[3 * c], flat[3 * c + 1], flat[3 * c + 2]) for c in range(num_classes))
    return default_palette(num_classes)
