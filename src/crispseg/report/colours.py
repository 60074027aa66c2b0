"""Maps as pictures: an image tensor, a label map in its palette, and the error map that tells boundary from interior.

A *picture* is a uint8 array (H, W, 3). Label maps are integer tensors (H, W).

Not here: crops and sheets (``panels``), responses (``responses``), HTML (``page``).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crispseg.metrics.labels import codes
from crispseg.metrics.regions import band

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

BOUNDARY_ERROR: Colour = (255, 138, 0)
INTERIOR_ERROR: Colour = (41, 151, 255)
VOID: tuple[Colour, Colour] = ((118, 118, 118), (146, 146, 146))
"""The two greys of the hatching that marks void."""


def picture(image: Tensor) -> Picture:
    """Return an image tensor (3, H, W), uint8 or floating point in [0, 1], as a picture.

    >>> picture(torch.tensor([[[1.0]], [[0.5]], [[0.0]]])).tolist()
    [[[255, 128, 0]]]
    """
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    out: Picture = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return out


def colourise(label: Tensor, palette: Sequence[Colour], ignore_index: int = 255) -> Picture:
    """Return a label map in its palette; void is hatched grey.

    Parameters
    ----------
    label
        Integer classes (H, W), each below ``len(palette)`` or ``ignore_index``.

    Examples
    --------
    >>> colourise(torch.tensor([[0, 1]]), [(1, 2, 3), (4, 5, 6)]).tolist()
    [[[1, 2, 3], [4, 5, 6]]]
    """
    values = label.cpu().numpy()
    void = values == ignore_index
    colours = np.asarray(palette, np.uint8)
    out: Picture = np.where(void[..., None], _hatching(*values.shape), colours[np.where(void, 0, values)])
    return out


def error_map(
    image: Tensor, pred: Tensor, truth: Tensor, num_classes: int, ignore_index: int = 255, *, near: int = 3
) -> Picture:
    """Return where ``pred`` is wrong: orange near a true class boundary, blue in the interior, over the dimmed image.

        wrong = pred ≠ truth;  near a boundary: another class of the truth within ``near`` px (‖·‖_∞)

    Parameters
    ----------
    image
        (3, H, W), uint8 or floating point in [0, 1]; shown dark and grey where the prediction is right.
    pred, truth
        Integer classes (H, W). Where the truth is ``ignore_index`` nothing is right or wrong: hatched grey.
    near
        d in px, at least 1.

    Raises
    ------
    ValueError, TypeError
        Maps that do not fit: see :func:`crispseg.metrics.labels.codes`.

    Examples
    --------
    >>> truth = torch.tensor([[0, 0, 0, 1, 1]])
    >>> pred = torch.tensor([[1, 0, 1, 1, 1]])
    >>> errors = error_map(torch.zeros(3, 1, 5), pred, truth, num_classes=2, near=1)
    >>> [tuple(pixel) for pixel in errors[0].tolist()] == [INTERIOR_ERROR, (0,) * 3, BOUNDARY_ERROR, (0,) * 3, (0,) * 3]
    True
    """
    p, t = codes(pred, truth, num_classes, ignore_index)
    void = (t[0] == 0).cpu().numpy()[..., None]
    wrong = (p != t)[0].cpu().numpy()[..., None]
    boundary = band(t, near, num_classes)[0].cpu().numpy()[..., None]
    grey = picture(image) @ np.array([0.299, 0.587, 0.114])
    right = (0.42 * grey[..., None]).round().astype(np.uint8).repeat(3, axis=2)
    error = np.where(boundary, np.array(BOUNDARY_ERROR, np.uint8), np.array(INTERIOR_ERROR, np.uint8))
    out: Picture = np.where(void, _hatching(*truth.shape), np.where(wrong, error, right))
    return out


def _hatching(height: int, width: int) -> Picture:
    y, x = np.ogrid[:height, :width]
    stripes: Picture = np.asarray(VOID, np.uint8)[((x + y) // 3) % 2]
    return stripes
