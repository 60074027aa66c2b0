"""``load``: a trained run as a function from an image to a mask, for use in Python.

Not here: masks as files (``masks``), what the network says of a tensor (``logits``).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from crispseg.data import ClassSet, read_image
from crispseg.data.images import upright_rgb
from crispseg.errors import CrispsegError, UsageError, in_a_line, is_memory
from crispseg.inference.labels import seen_size
from crispseg.inference.logits import Size, predict_logits
from crispseg.runs import load_run

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor
LARGE = 2048 * 2048
"""Pixels above which an image is seen by windows, unless they are chosen."""
WINDOW = (1024, 1024)
"""(height, width) of these windows, in pixels; they overlap by half."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A trained network as a function: ``predictor(image)`` is the mask. :func:`crispseg.load` makes one of a run.

    ``dataclasses.replace(predictor, flip=True)`` is the same with another option.

    Parameters
    ----------
    model
        Logits (B, K, h, w) of RGB images (B, 3, h, w) in [0, 1]; in eval mode, on ``device``.
    classes
        What the values of a mask mean.
    device
        Where the model is.
    size
        (height, width) of the images that the model was trained on, if those were resized: an image is brought to as
        many pixels, in its own proportions, before the model sees it. None: images are seen as they are.
    window, stride, scales, flip
        As in :func:`crispseg.inference.predict_logits`. A window ``"auto"`` is none up to 2048 · 2048 pixels (as the
        model sees them); larger images are seen by windows of 1024 × 1024.
    """

    model: nn.Module
    classes: ClassSet
    device: torch.device
    size: Size | None = None
    window: Size | Literal["auto"] | None = "auto"
    stride: Size | None = None
    scales: Sequence[float] = (1.0,)
    flip: bool = False

    @overload
    def __call__(self, image: Picture, *, scores: Literal[False] = False) -> Tensor: ...
    @overload
    def __call__(self, image: Picture, *, scores: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def __call__(self, image: Picture, *, scores: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the mask of an image: its class at every pixel.

        Parameters
        ----------
        image
            The path of a file; a Pillow image; an array (H, W, 3), or (H, W) for grey; or a tensor (3, H, W). Colours
            are RGB: uint8, or floating point in [0, 1]. OpenCV's arrays are BGR: give ``array[..., ::-1]``.
        scores
            Also return the probability of each class.

        Returns
        -------
        Tensor
            uint8 (H, W) on the CPU; with ``scores`` also float32 (K, H, W), the softmax of the logits.

        Raises
        ------
        DataError
            The file is missing, damaged or no picture.
        ValueError, TypeError
            The array or tensor is not as described.
        CrispsegError
            The device has too little memory for an image of this size; a smaller ``window`` needs less.
        """
        x = as_tensor(image)
        own = (x.shape[-2], x.shape[-1])
        size = seen_size(own, self.size)
        height, width = size or own
        window = (WINDOW if height * width > LARGE else None) if self.window == "auto" else self.window
        try:
            logits = predict_logits(
                self.model,
                x.to(self.device),
                size=size,
                window=window,
                stride=None if window is None else self.stride,
                scales=self.scales,
                flip=self.flip,
            )
            mask = logits.argmax(0).to("cpu", torch.uint8)
            return (mask, logits.float().softmax(0).cpu()) if scores else mask
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            message = f"{own[1]}×{own[0]} pixels are too many for {self.device}; take a smaller window"
            raise CrispsegError(f"{message} ({in_a_line(error)})") from error


def load(
    path: str | os.PathLike[str], *, factory: str | None = None, device: str | torch.device = "auto", **options: Any
) -> Predictor:
    """Read a trained run, or what it was exported to, back as a function from an image to a mask.

    The folder, or file, is data: nothing in it is run, and nothing that it names is fetched.

    Parameters
    ----------
    path
        The run folder of a training, or a file of ``crispseg export``.
    factory
        ``"PATH.py:FACTORY"``: the code to run, for a run of a network that is not crispseg's own.
    device
        ``"auto"`` (a GPU of CUDA, if there is one, or the CPU), ``"cpu"``, ``"cuda"``, ``"mps"``, ….
    options
        ``window``, ``stride``, ``scales`` and ``flip`` of :class:`crispseg.inference.Predictor`.

    Raises
    ------
    UsageError
        ``path`` is no run folder and no exported file, its network needs code that was not named, there is no such
        device, or no runtime for the file.
    DataError
        A file of it is damaged.

    Examples
    --------
    ::

        predictor = crispseg.load("runs/sdn")
        mask = predictor("photo.jpg")                       # uint8 (H, W)
        mask, scores = predictor(array, scores=True)        # and float32 (K, H, W)
        names = [predictor.classes.names[i] for i in mask.unique()]
    """
    where = choose_device(device)
    run = load_run(path, factory=factory)
    return Predictor(model=run.model.to(where), classes=run.classes, device=where, size=run.config.data.size, **options)


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; ``"auto"``: a GPU of CUDA, if there is one, or the CPU. UsageError if not there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name} is not available here: {in_a_line(error)}") from error
    return device


def as_tensor(image: Picture) -> Tensor:
    """Return an image of any kind that :class:`Predictor` takes as RGB in [0, 1], float32 (3, H, W).

    >>> as_tensor(np.full((2, 4), 255, np.uint8)).shape
    torch.Size([3, 2, 4])
    """
    if isinstance(image, str | os.PathLike):
        x = read_image(image)
    elif isinstance(image, Image.Image):
        x = upright_rgb(image, "the image")
    elif isinstance(image, np.ndarray):
        if not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)) or 0 in image.shape:
            raise ValueError(f"an array must be (H, W, 3) or (H, W), found {image.shape}")
        array = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image
        if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype != np.uint8):
            raise ValueError(f"an image must be uint8, or floating point in [0, 1], found {array.dtype}")
        x = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
    elif isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"a tensor must be (3, H, W), found {tuple(image.shape)}")
        x = image.as_subclass(Tensor).detach()
    else:
        raise TypeError(f"expected a path, a Pillow image, an array or a tensor, found {type(image).__name__}")
    if x.dtype == torch.uint8:
        return x.contiguous().float() / 255
    if not x.is_floating_point():
        raise ValueError(f"an image must be uint8, or floating point in [0, 1], found {x.dtype}")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(f"an image of {x.dtype} must lie in [0, 1], found {x.min():g} to {x.max():g}")
    return x.contiguous().float()
