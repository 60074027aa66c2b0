"""``refine``: a mask from anywhere made crisp with its picture alone; ``refine_files``: a folder of them.

Not here: what refines (``crispseg.refinement``), networks of the user's (``masks``, ``predictor``).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from crispseg.data.images import open_picture
from crispseg.data.labels import one_channel
from crispseg.data.samples import by_name
from crispseg.data.scores import SCORES, read_scores
from crispseg.errors import DataError, UsageError
from crispseg.files import write_bytes
from crispseg.inference.masks import Outcome
from crispseg.inference.predictor import Picture, as_tensor
from crispseg.refinement import Refiner
from crispseg.refinement import refine as refine_scores

Mask = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor
MASKS = frozenset({".png"})
VOID = 255


def refine(
    image: Picture,
    mask: Mask,
    *,
    soft: bool = False,
    kind: Literal["logits", "probabilities"] = "probabilities",
    refiner: Refiner | str = "crispseg",
    ignore_index: int = VOID,
) -> Tensor:
    """Make a mask crisp: each border moves to where the picture has it. No training, no network of yours.

    Only pixels near a border of the mask may change. Any number of classes is one pass.

    Parameters
    ----------
    image
        As for :func:`crispseg.load`: a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W).
    mask
        Class indices (H, W): a PNG file, a Pillow image, or an array or tensor of integers. Or class scores (K, H, W):
        floating point, or a ``.npy`` file, or ``.npz`` of one array. Scores hold more than their largest: give them if
        you have them.
    soft
        Return probabilities, not classes.
    kind
        What scores are: ``"probabilities"`` or ``"logits"``.
    refiner
        ``"crispseg"``, or another one as in ``--refine``: ``"guided:radius=4"``.
    ignore_index
        Void in a mask of indices: it stays where it is, and speaks for no class.

    Returns
    -------
    Tensor
        Classes uint8 (H, W); or with ``soft`` float32 (K, H, W), K that of the scores, or one more than the largest
        index of the mask.

    Raises
    ------
    DataError
        A file is missing, damaged or none of these.
    ValueError, TypeError
        Sizes that differ, scores that are not finite or no probabilities, indices out of range.

    Examples
    --------
    >>> image = np.zeros((32, 40, 3), np.uint8)
    >>> image[:, 22:] = 200
    >>> mask = np.zeros((32, 40), np.uint8)
    >>> mask[:, 18:] = 1
    >>> refine(image, mask)[16, [16, 20, 24]].tolist()
    [0, 0, 1]
    """
    x, found = as_tensor(image), read_mask(mask)
    if found.ndim == 3:
        return _of_scores(x, found, refiner, kind, soft)
    if found.shape != x.shape[1:]:
        raise ValueError(f"image and mask must have one size, found {_size(x[0])} and {_size(found)}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high > 255:
        raise ValueError(f"class indices must be 0 to 255, found {low} to {high}")
    label = found.to(torch.uint8)
    void = label == ignore_index
    present = label[~void].unique().tolist()
    refined = label.clone()
    if len(present) < 2:  # nothing to move
        p = torch.ones(len(present), *label.shape)
    else:
        hard = torch.stack([label == c for c in present]).float()
        p = refine_scores(_without(void, hard), x, refiner, kind="probabilities")
        refined = torch.tensor(present, dtype=torch.uint8)[p.argmax(0)]
        refined[void] = ignore_index
    if not soft:
        return refined
    whole = torch.zeros(max(present, default=-1) + 1, *label.shape)
    whole[present] = p * ~void
    return whole


def _of_scores(image: Tensor, scores: Tensor, refiner: Refiner | str, kind: Any, soft: bool) -> Tensor:
    if scores.shape[1:] != image.shape[1:]:
        raise ValueError(f"image and scores must have one size, found {_size(image[0])} and {_size(scores[0])}")
    p = refine_scores(scores, image, refiner, kind=kind)
    return p if soft else p.argmax(0).to(torch.uint8)


def _without(void: Tensor, p: Tensor) -> Tensor:
    """p (K, H, W) with void pixels as unsure as can be."""
    return torch.where(void, 1 / len(p), p) if bool(void.any()) else p


def _size(x: Tensor) -> str:
    return f"{x.shape[-1]}×{x.shape[-2]}"


def read_mask(mask: Mask) -> Tensor:
    """Return class indices (H, W), int64, or scores (K, H, W), float32. Raises as :func:`refine`."""
    if isinstance(mask, str | os.PathLike):
        path = Path(mask)
        return read_scores(path) if path.suffix.lower() in SCORES else torch.from_numpy(_indices(path)[0])
    if isinstance(mask, Image.Image):
        x = torch.from_numpy(_one_channel(mask, "the mask"))
    elif isinstance(mask, np.ndarray | Tensor):
        x = torch.as_tensor(np.ascontiguousarray(mask)) if isinstance(mask, np.ndarray) else mask.detach()
    else:
        raise TypeError(f"expected a path, a Pillow image, an array or a tensor, found {type(mask).__name__}")
    if x.ndim == 3 and x.is_floating_point() and x.numel():
        return x.float()
    if x.ndim != 2 or x.is_floating_point() or x.is_complex() or not x.numel():
        raise ValueError(
            f"a mask must be integers (H, W), or floating point scores (K, H, W), found {x.dtype} {tuple(x.shape)}"
        )
    return x.long()


def _indices(path: Path) -> tuple[npt.NDArray[np.int64], list[int] | None]:
    """The indices of a mask file, and its palette if it has one."""
    with open_picture(path) as picture:
        if picture.format != "PNG":
            raise DataError(f"{path}: expected a mask as a PNG of class indices, found {picture.format}")
        return _one_channel(picture, path), picture.getpalette("RGB") if picture.mode == "P" else None


def _one_channel(picture: Image.Image, name: object) -> npt.NDArray[np.int64]:
    if picture.mode not in ("L", "P", "1"):
        raise DataError(f"{name}: expected one channel of class indices, found a picture of mode {picture.mode}")
    return one_channel(picture).astype(np.int64)


def refine_files(
    images: str | Path,
    masks: str | Path,
    out: str | Path,
    *,
    soft: bool = False,
    overwrite: bool = False,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
    **options: Any,
) -> Outcome:
    """Refine every mask below a folder with the picture of the same name, and write it to ``out`` under that name.

    Parameters
    ----------
    images, masks
        Folders. A mask is a PNG of class indices, or scores in a ``.npy`` or ``.npz`` file; its picture has the same
        path without suffix. Pictures without a mask are left alone.
    out
        Gets ``NAME.png``, class indices in the colours of a mask that has some, or with ``soft`` ``NAME.npy``,
        probabilities (K, H, W), float32.
    overwrite
        Replace files that are there.
    track
        Wraps the names as they are worked through, for a progress bar.
    options
        ``kind``, ``refiner`` and ``ignore_index`` of :func:`refine`.

    Returns
    -------
    What was written, and what was left out: a mask without a picture, or of another size, or that cannot be read.

    Raises
    ------
    UsageError
        Before anything is written: a folder is missing, ``out`` is one of the inputs, or holds one of the files.
    DataError
        There are no masks, or two of one name.
    """
    pictures, found = (_folder(Path(images), "pictures"), _folder(Path(masks), "masks", MASKS | SCORES))
    target = {name: Path(out) / f"{name}{'.npy' if soft else '.png'}" for name in found}
    _check_out(Path(out), (Path(images), Path(masks)), [] if overwrite else list(target.values()))
    outcome = Outcome([], [])
    for name in track(list(found)):
        try:
            if name not in pictures:
                raise DataError(f"{found[name]}: expected a picture {name} in {images}, found none")
            write_bytes(target[name], _refined(pictures[name], found[name], soft, options))
            outcome.written.append(target[name])
        except DataError as error:
            outcome.failed.append(error)
        except (ValueError, FloatingPointError) as error:
            outcome.failed.append(DataError(f"{found[name]}: cannot be refined: {error}"))
    return outcome


def _folder(folder: Path, what: str, *suffixes: frozenset[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder of {what}, found {'a file' if folder.exists() else 'nothing'}")
    found = by_name(folder, lambda name: name, *suffixes)
    if not found:
        raise DataError(f"{folder}: expected {what} in this folder, found none")
    return found


def _check_out(out: Path, inputs: Sequence[Path], targets: Sequence[Path]) -> None:
    for folder in inputs:
        if out.resolve() == folder.resolve():
            raise UsageError(f"{out}: the refined masks would replace what they are made of; choose another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder to write to, found a file")
    for path in targets:
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already; choose another --out, or --overwrite")


def _refined(image: Path, mask: Path, soft: bool, options: dict[str, Any]) -> bytes:
    palette = None
    given: Mask = mask
    if mask.suffix.lower() not in SCORES:
        given, palette = _indices(mask)
    result = refine(image, given, soft=soft, **options)
    buffer = BytesIO()
    if soft:
        np.save(buffer, result.numpy(), allow_pickle=False)
    else:
        picture = Image.fromarray(result.numpy())
        if palette:
            picture.putpalette(palette)
        picture.save(buffer, "PNG")
    return buffer.getvalue()
