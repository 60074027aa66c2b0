"""``label_map``: the classes that a network sees in a picture, as it is trained to see it, refined or not.

Not here: logits (``logits``), what refining is (``crispseg.refinement``), files (``masks``).
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import DataError
from crispseg.inference.logits import Size, predict_logits
from crispseg.refinement import Refiner, refine


def label_map(
    model: nn.Module,
    image: Tensor,
    *,
    size: Size | None = None,
    refiner: Refiner | None = None,
    device: str | torch.device = "cpu",
    name: str | Path = "the picture",
    **options: Any,
) -> Tensor:
    """Return the classes uint8 (H, W) that ``model`` sees in a picture uint8 (3, H, W).

    ``size``: (height, width) of the pictures that the model was trained on, see :func:`seen_size`. ``refiner``: refines
    the class scores with the picture first. ``options``: of :func:`crispseg.inference.predict_logits`. Raises
    ``DataError``, naming the picture by ``name``, for scores that cannot be refined.
    """
    logits = score_map(model, image, size=size, refiner=refiner, device=device, name=name, **options)
    return logits.argmax(0).to("cpu", torch.uint8)


def score_map(
    model: nn.Module,
    image: Tensor,
    *,
    size: Size | None = None,
    refiner: Refiner | None = None,
    device: str | torch.device = "cpu",
    name: str | Path = "the picture",
    **options: Any,
) -> Tensor:
    """Return the logits (K, H, W) of which :func:`label_map` takes the largest, on ``device``."""
    x = image.to(device) / 255
    try:
        logits = predict_logits(model, x, size=seen_size((image.shape[-2], image.shape[-1]), size), **options)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if refiner is not None:
        try:
            logits = refine(logits, x, refiner)
        except (ValueError, FloatingPointError) as error:
            raise DataError(f"{name}: cannot be refined: {error}") from error
    return logits


def seen_size(own: Size, trained: Size | None) -> Size | None:
    """The size at which a model trained on pictures of one size should see another: as many pixels, own proportions.

    >>> seen_size((360, 480), (180, 240)), seen_size((480, 360), (180, 240)), seen_size((5, 5), None)
    ((180, 240), (240, 180), None)
    """
    if trained is None:
        return None
    factor = math.sqrt(trained[0] * trained[1] / (own[0] * own[1]))
    return max(1, round(own[0] * factor)), max(1, round(own[1] * factor))
