"""``fit_refiner``: the refiner of ``crispseg refine`` adapted to a user's model, pictures and labels; does it help?

The labelled pictures are parted by the seed: most to train on, some to choose the best weights on, and some that are
held out and looked at once, at the end. What is said of the gain is of these alone.

Not here: the training itself (``crispseg.training``), intervals (``crispseg.evaluation``).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.config import RefinerFitting
from crispseg.data import image_size, read_image
from crispseg.data.images import SUFFIXES
from crispseg.data.samples import by_name
from crispseg.data.scores import SCORES
from crispseg.errors import DataError, UsageError
from crispseg.evaluation import Evaluation, compare, suite
from crispseg.evaluation.bootstrap import group_images
from crispseg.inference import refine
from crispseg.inference.refining import MASKS, read_mask
from crispseg.refinement.learned import SHIPPED, read_weights, refined_by, write_weights
from crispseg.refinement.network import RefinerNetwork
from crispseg.refinement.refine import as_probabilities
from crispseg.refinement.sparse import MULTIPLE
from crispseg.training.refiner_fit import CROP, Example, fit_network
from crispseg.training.refiner_loss import VOID

__all__ = ["fit_refiner"]
DEFAULT = RefinerFitting()
FEWEST = 8
"""Groups of pictures (each picture is one, unless a pattern says otherwise)."""
HELD_OUT, CHOOSE = 0.25, 0.15
"""Shares of the groups."""
MOST_TO_CHOOSE = 24
"""Pictures that the weights are chosen on: each is refined at every validation."""
METRICS = ("boundary_f_1", "boundary_f_3", "boundary_iou", "miou")
DECIDES = "boundary_f_1"
MASKS_ALONE, BEFORE, AFTER = "masks", "before", "after"


@dataclass(frozen=True)
class Reading:
    """What scores are, and the index of void."""

    kind: Literal["logits", "probabilities"]
    void: int


@dataclass(frozen=True)
class Labelled:
    """A picture, the mask of it that a model made, and its label, all of one size."""

    name: str
    image: Path
    mask: Path
    label: Path


def fit_refiner(
    images: str | Path,
    masks: str | Path,
    labels: str | Path,
    out: str | os.PathLike[str],
    *,
    options: RefinerFitting = DEFAULT,
    weights: str | os.PathLike[str] | None = None,
    group: str | None = None,
    kind: Literal["logits", "probabilities"] = "probabilities",
    ignore_index: int = 255,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Adapt the learned refiner to masks of a model, write its weights to ``out``, and say what that gained.

    Parameters
    ----------
    images, masks, labels
        Folders; a mask is a PNG of class indices or scores (K, H, W) in a ``.npy`` or ``.npz`` file, a label a PNG of
        class indices. A picture and a mask belong to the label of their name. Those without a label are left alone.
    out
        The weights, safetensors: for ``crispseg.refine(…, refiner="crispseg:weights=FILE")``.
    options
        How long, how fast, and the seed.
    weights
        What to start from; None: the weights of the package.
    group
        A regular expression on names: pictures with the same match (frames of one film) are held out together.
    kind
        What scores are.
    ignore_index
        Void in labels and masks.

    Returns
    -------
    dict
        ``masks``, ``before`` and ``after``: the metrics of the held-out pictures, in 0–1, of the masks as they are,
        refined with the starting weights, and with those of ``out``. ``differences``: after − before, each with
        ``low`` and ``high`` of its 95 % interval (None: too few pictures). ``helps``: whether boundary F at 1 px rose
        and its interval lies above 0. ``steps``: at which step the best weights were found, 0 if none were better.
        ``pictures``: how many of each part.

    Raises
    ------
    UsageError, DataError
        A folder is missing, a label has no picture or mask, sizes or classes differ, or there are too few pictures;
        the file is named. Nothing is written then.
    """
    start = read_weights(SHIPPED if weights is None else Path(weights))
    reading = Reading(kind, ignore_index)
    found = _find(Path(images), Path(masks), Path(labels))
    classes, crop = _check(found, reading)
    train, choose, held_out = _parts(found, options.seed, group)
    say(
        f"{len(found)} labelled pictures: {len(train)} to train on, {len(choose)} to choose on, "
        f"{len(held_out)} held out; {classes} classes"
    )

    def measured(some: Iterable[Labelled], network: RefinerNetwork | None) -> Evaluation:
        return suite(_maps(some, network, reading), [str(c) for c in range(classes)], VOID, anatomy=False)

    def quality(network: RefinerNetwork) -> float:
        head = measured(choose, network).headline()
        return sum(head[f"boundary_f_{t}"] for t in (1, 3, 5)) / 3

    say("boundary F (mean of 1, 3 and 5 px) on those to choose on")
    best, steps = fit_network(
        start, [partial(_example, one, classes, reading) for one in train], quality, options, crop=crop, say=say
    )
    sides = {
        BEFORE: [measured(held_out, start)],
        MASKS_ALONE: [measured(held_out, None)],
        AFTER: [measured(held_out, best)],
    }
    about = compare(sides, group=group, seed=options.seed)
    differences = {
        m: {key: about["differences"][AFTER][m][key] for key in ("difference", "low", "high")} for m in METRICS
    }
    low = differences[DECIDES]["low"]
    result = {
        **{name: {m: about["contenders"][name]["metrics"][m]["mean"] for m in METRICS} for name in sides},
        "differences": differences,
        "helps": low is not None and low > 0,
        "steps": steps,
        "pictures": {"train": len(train), "choose": len(choose), "held_out": len(held_out)},
    }
    write_weights(best, out, {"fitted": str(steps), "seed": str(options.seed), "pictures": str(len(train))})
    return result


def _find(images: Path, masks: Path, labels: Path) -> list[Labelled]:
    """What belongs together, by the names of the labels."""
    asked = (images, "pictures", SUFFIXES), (masks, "masks", MASKS | SCORES), (labels, "labels", MASKS)
    found = []
    for folder, what, suffixes in asked:
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: expected a folder of {what}, found {'a file' if folder.exists() else 'nothing'}"
            )
        found.append(by_name(folder, lambda name: name, suffixes))
        if not found[-1]:
            raise DataError(f"{folder}: expected {what} in this folder, found none")
    pictures, made, truths = found
    for name, label in truths.items():
        for folder, what, there in ((images, "picture", pictures), (masks, "mask", made)):
            if name not in there:
                raise DataError(f"{label}: expected a {what} {name} in {folder}, found none")
    return [Labelled(name, pictures[name], made[name], label) for name, label in sorted(truths.items())]


def _check(found: Iterable[Labelled], reading: Reading) -> tuple[int, tuple[int, int]]:
    """Read all masks and labels once: the number of classes, and the size of a crop that fits into every picture."""
    scored: dict[int, Path] = {}
    most, where, height, width = 0, Path(), CROP, CROP
    for one in found:
        size = image_size(one.image)
        label = _label(one.label, reading.void)
        given = read_mask(one.mask)
        for path, map_ in ((one.label, label), (one.mask, given)):
            if tuple(map_.shape[-2:]) != size:
                raise DataError(
                    f"{path}: expected the size of {one.image}, {size[1]}×{size[0]}, "
                    f"found {map_.shape[-1]}×{map_.shape[-2]}"
                )
        if given.ndim == 3:
            scored.setdefault(len(given), one.mask)
            _probabilities(given, one.mask, reading)
        maps = [label] if given.ndim == 3 else [label, _label(one.mask, reading.void)]
        for path, map_ in zip((one.label, one.mask), maps):
            known = map_[map_ != VOID]
            if len(known) and int(known.max()) >= most:
                most, where = int(known.max()) + 1, path
        height, width = (min(side, n // MULTIPLE * MULTIPLE) for side, n in zip((height, width), size))
        if not height or not width:
            raise DataError(f"{one.image}: expected at least {MULTIPLE}×{MULTIPLE} pixels, found {size[1]}×{size[0]}")
    if len(scored) > 1:
        (k, first), (other, second) = list(scored.items())[:2]
        raise DataError(f"{second}: expected scores of {k} classes, as in {first}, found {other}")
    for k, path in scored.items():
        if most > k:
            raise DataError(f"{where}: expected class indices below {k}, the classes of {path}, found {most - 1}")
        most = k
    if most < 2:
        raise DataError(f"{where.parent}: expected labels of two classes or more, found {most}")
    return most, (height, width)


def _parts(
    found: Sequence[Labelled], seed: int, pattern: str | None
) -> tuple[list[Labelled], list[Labelled], list[Labelled]]:
    """Those to train on, to choose on, and held out; pictures of a group are in one part."""
    number, keys = group_images([one.name for one in found], pattern)
    if len(keys) < FEWEST:
        what = "labelled pictures" if pattern is None else f"groups of labelled pictures by --group {pattern!r}"
        raise DataError(f"{found[0].label.parent}: expected at least {FEWEST} {what}, found {len(keys)}")
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))
    ends = round(HELD_OUT * len(keys)), round((HELD_OUT + CHOOSE) * len(keys))
    place = order.argsort()[number].tolist()
    held_out, choose, train = (
        [one for one, at in zip(found, place) if first <= at < end]
        for first, end in ((0, ends[0]), ends, (ends[1], len(keys)))
    )
    few = min(len(choose), MOST_TO_CHOOSE)
    return train, [choose[i * len(choose) // few] for i in range(few)], held_out


def _label(path: Path, void: int) -> Tensor:
    """Class indices (H, W), int64, void 255."""
    label = read_mask(path)
    if int(label.max()) > VOID or int(label[label != void].max() if bool((label != void).any()) else 0) >= VOID:
        raise DataError(f"{path}: expected class indices below {VOID} and void {void}, found {int(label.max())}")
    return label.masked_fill(label == void, VOID)


def _probabilities(scores: Tensor, path: Path, reading: Reading) -> Tensor:
    try:
        return as_probabilities(scores, reading.kind)
    except ValueError as error:
        raise DataError(f"{path}: cannot be refined: {error}") from error


def _example(one: Labelled, classes: int, reading: Reading) -> Example:
    image, label, given = read_image(one.image), _label(one.label, reading.void), read_mask(one.mask)
    if given.ndim == 3:
        return Example(image, label, _probabilities(given, one.mask, reading))
    given = _label(one.mask, reading.void)
    p = F.one_hot(given.masked_fill(given == VOID, 0), classes).permute(2, 0, 1).float()
    return Example(image, label, torch.where(given == VOID, 1 / classes, p))


def _maps(
    some: Iterable[Labelled], network: RefinerNetwork | None, reading: Reading
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, mask, truth: the mask as it is, or refined by a network as ``crispseg refine`` would."""
    for one in some:
        given = read_mask(one.mask)
        if network is None:
            mask = given.argmax(0) if given.ndim == 3 else given
        else:
            refiner = partial(refined_by, network)
            mask = refine(read_image(one.image), given, kind=reading.kind, refiner=refiner, ignore_index=reading.void)
        if given.ndim == 2:
            mask = mask.long().masked_fill(mask == reading.void, VOID)
        yield one.name, mask.to(torch.uint8), _label(one.label, reading.void)
