"""``refine``: checked scores through a refiner; the table of refiners; their one-line form, as the command takes it.

Not here: what each refiner does; each has its own file.
"""

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from crispseg import typed
from crispseg.errors import UsageError, nearest
from crispseg.names import RefinerName
from crispseg.refinement.bilateral_solver import BilateralSolver
from crispseg.refinement.dense_crf import DenseCRF
from crispseg.refinement.guided_filter import GuidedFilter
from crispseg.refinement.learned import LearnedRefiner
from crispseg.refinement.rank import RankSEG
from crispseg.refinement.score_diffusion import ScoreDiffusion

SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a pixel may add up: what half precision makes of a softmax over many classes."""

ROUNDING = 1e-6
"""Sums this near to 1 are what float32 makes of one."""


class Refiner(Protocol):
    """A frozen dataclass of typed options, called with probabilities (K, H, W) and an image (3, H, W) in [0, 1]."""

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return scores (K, H, W), the largest of which is a pixel's class."""
        ...


REFINERS: dict[RefinerName, type[Any]] = {
    "crispseg": LearnedRefiner,
    "crf": DenseCRF,
    "guided": GuidedFilter,
    "bilateral": BilateralSolver,
    "diffusion": ScoreDiffusion,
    "rankseg": RankSEG,
}


@torch.no_grad()
def refine(
    scores: Tensor | np.ndarray[Any, Any],
    image: Tensor | np.ndarray[Any, Any],
    refiner: Refiner | str,
    *,
    kind: Literal["logits", "probabilities"] = "logits",
) -> Tensor:
    """Refine the class scores of one image with the image itself as the guide.

    Parameters
    ----------
    scores
        (K, H, W), finite.
    image
        (3, H, W), RGB: uint8, or floating point in [0, 1].
    refiner
        A refiner of this package, or its one-line form as in ``--refine``: ``"guided:radius=4"``.
    kind
        ``"logits"``: their softmax over the classes is refined. ``"probabilities"``: not negative, sum 1 a pixel.

    Returns
    -------
    Tensor
        Scores (K, H, W), float32, on the device of ``scores``; ``.argmax(0)`` are the labels. Those of ``crispseg``,
        ``crf`` and ``diffusion`` are probabilities.

    Raises
    ------
    ValueError
        Shapes that do not fit; values that are not finite, or are no probabilities or no image.
    UsageError
        No such refiner, or an option that it does not have.

    Examples
    --------
    >>> p = torch.tensor([[[0.9, 0.4, 0.6, 0.1]], [[0.1, 0.6, 0.4, 0.9]]])
    >>> image = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).expand(3, 1, 4)
    >>> refine(p, image, "diffusion:scale=0.1", kind="probabilities").argmax(0)
    tensor([[0, 0, 1, 1]])
    """
    chosen: Any = read_refiner(refiner) if isinstance(refiner, str) else refiner
    p, guide = as_probabilities(torch.as_tensor(scores), kind), _image(torch.as_tensor(image))
    if p.shape[1:] != guide.shape[1:]:
        raise ValueError(f"scores and image must have one size, found {tuple(p.shape)} and {tuple(guide.shape)}")
    refined: Tensor = chosen(p, guide.to(p.device))
    return refined


def read_refiner(word: str) -> Refiner:
    """Return the refiner that ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE`` means. UsageError where it means none.

    >>> read_refiner("guided:radius=4")
    GuidedFilter(radius=4, epsilon=0.001)
    """
    name, colon, rest = word.partition(":")
    kind = next((kind for known, kind in REFINERS.items() if known == name), None)
    if kind is None:
        raise UsageError(f"no refiner {name!r}{nearest(name, REFINERS)}")
    options: dict[str, str] = {}
    for part in rest.split(",") if colon else []:
        key, _, value = part.partition("=")
        if not key or not value:
            raise UsageError(f"{name}: expected {name}:KEY=VALUE,…, found {part!r}")
        if key in options:
            raise UsageError(f"{name}: {key} comes twice")
        options[key] = value
    try:
        refiner: Refiner = typed.build(options, kind)
    except UsageError as error:
        raise UsageError(f"{name}: {str(error).removeprefix(f'{name}.')}") from error
    return refiner


def write_refiner(refiner: Refiner) -> str:
    """Return the one-line form of a refiner of this package, every option spelled out.

    >>> write_refiner(GuidedFilter())
    'guided:radius=8,epsilon=0.001'
    """
    (name,) = [name for name, kind in REFINERS.items() if type(refiner) is kind]
    options: Any = refiner
    said = [f"{f.name}={value}" for f in dataclasses.fields(options) if (value := getattr(options, f.name)) is not None]
    return f"{name}:{','.join(said)}" if said else name


def as_probabilities(scores: Tensor, kind: str) -> Tensor:
    """Return probabilities (K, H, W) of scores that are logits or probabilities; ValueError if they are not."""
    if kind not in ("logits", "probabilities"):
        raise ValueError(f"kind must be logits or probabilities, found {kind!r}")
    if scores.ndim != 3 or scores.numel() == 0:
        raise ValueError(f"scores must be (K, H, W) and not empty, found shape {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floating point, found {scores.dtype}")
    scores = scores.float()
    total = scores.sum(0)
    if not bool(torch.isfinite(total).all()) and not bool(torch.isfinite(scores).all()):
        raise ValueError("scores hold values that are not finite")
    if kind == "logits":
        return scores.softmax(0)
    if (low := float(scores.min())) < 0:
        raise ValueError(f"probabilities must be at least 0, found {low:g}; logits need kind='logits'")
    if float((total - 1).abs().max()) <= ROUNDING:
        return scores
    if bool((off := (total - 1).abs() > SUM_TOLERANCE).any()):
        y, x = (int(i) for i in off.nonzero()[0])
        raise ValueError(
            f"the probabilities of a pixel must add up to 1, found {float(total[y, x]):g} at row {y}, column {x} "
            f"({int(off.sum())} such pixels)"
        )
    return scores / total


def _image(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise ValueError(f"image must be (3, H, W), found shape {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point():
        raise ValueError(f"image must be uint8 or floating point, found {image.dtype}")
    image = image.float()
    low, high = (float(x) for x in torch.aminmax(image))
    if not (low >= 0 and high <= 1):  # also of NaN
        raise ValueError(f"image must lie in [0, 1], found {low:g} to {high:g}")
    return image
