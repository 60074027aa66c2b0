"""``predict_logits``: from an image to logits at its size, whole or by windows, at several scales, mirrored or not.

Everything that is averaged here is a logit. Not here: files, and what is made of the logits.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import DataError
from crispseg.inference.spans import blend, spans

Size = tuple[int, int]
Model = Callable[[Tensor], Tensor]


@torch.no_grad()
def predict_logits(
    model: Model,
    image: Tensor,
    *,
    size: Size | None = None,
    window: Size | None = None,
    stride: Size | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Logits of an image at its own size: the mean over scales and mirror image, each whole or by sliding window.

        z = mean_{s, m} R_s⁻¹ M_m⁻¹ f(M_m R_s x)        R_s: resize by s;  M: identity, and the mirror if ``flip``

    With the defaults it is ``model(image)``, exactly. Resizing is bilinear, with anti-aliasing of the image.

    Parameters
    ----------
    model
        Logits (B, K, h, w) of images (B, 3, h, w), in eval mode.
    image
        RGB in [0, 1], (3, H, W) or a batch (B, 3, H, W), on the model's device.
    size
        (height, width) at which the model sees the image at scale 1; None: its own.
    window
        (height, width) of a sliding window, for images larger than what the model was trained on. Where windows overlap
        their logits are averaged, with weights that fall towards a window's edge, where the model knows least of what
        surrounds a pixel (``spans``). None, or a window that covers the image: in one piece. Logits of the whole image
        are held; for images larger than memory there is :func:`crispseg.inference.predict_large`.
    stride
        Distance between windows; None: half a window. The last window of a row ends at the image's edge.
    scales
        Factors s on the size.
    flip
        Average with the mirror image.

    Returns
    -------
    Tensor
        (K, H, W), or (B, K, H, W) for a batch.

    Raises
    ------
    ValueError
        A shape or an option that does not fit, or a model in training mode or not answering at its input's size.
    DataError
        The model answers with NaN.

    Examples
    --------
    >>> model = torch.nn.Conv2d(3, 5, 1).eval()
    >>> predict_logits(model, torch.rand(3, 40, 60), window=(32, 32), scales=(0.5, 1.0), flip=True).shape
    torch.Size([5, 40, 60])
    """
    _check(model, image, size, window, stride, scales)
    batch = image if image.ndim == 4 else image[None]
    own = (batch.shape[-2], batch.shape[-1])
    base = own if size is None else size
    total: Tensor | None = None
    for scale in scales:
        at = (max(1, round(base[0] * scale)), max(1, round(base[1] * scale)))
        x = _resize(batch, at, antialias=True)
        for mirrored in (False, True) if flip else (False,):
            z = _windowed(model, x.flip(-1) if mirrored else x, window, stride)
            z = _resize(z.flip(-1) if mirrored else z, own, antialias=False)
            total = z if total is None else total + z
    assert total is not None
    mean = total / (len(scales) * (1 + flip)) if len(scales) * (1 + flip) > 1 else total
    if bool(mean.isnan().any()):  # of which the largest is no class
        raise DataError("the network's class scores are not numbers (NaN); its weights may be damaged or diverged")
    return mean if image.ndim == 4 else mean[0]


def windows(height: int, width: int, window: Size, stride: Size) -> Iterator[tuple[slice, slice]]:
    """Yield the (rows, columns) of windows that cover a map, the last of each row and column ending at its edge.

    >>> [(rows.start, columns.start) for rows, columns in windows(4, 10, (4, 4), (4, 4))]
    [(0, 0), (0, 4), (0, 6)]
    """
    for rows in spans(height, window[0], stride[0]):
        for columns in spans(width, window[1], stride[1]):
            yield rows.cut(), columns.cut()


def _windowed(model: Model, x: Tensor, window: Size | None, stride: Size | None) -> Tensor:
    height, width = x.shape[-2:]
    if window is None or (window[0] >= height and window[1] >= width):
        return _answer(model, x)
    stride = stride or (max(1, window[0] // 2), max(1, window[1] // 2))
    down, across = spans(height, window[0], stride[0]), spans(width, window[1], stride[1])
    answers = (_answer(model, x[..., rows.cut(), columns.cut()]) for rows in down for columns in across)
    whole: Tensor | None = None
    for rows, columns, z in blend(answers, down, across):
        if whole is None:
            whole = z.new_empty(*z.shape[:2], height, width)
        whole[..., rows, columns] = z
    assert whole is not None
    return whole


def _answer(model: Model, x: Tensor) -> Tensor:
    """Return the logits of images (B, 3, H, W). ValueError if the model does not answer at their size."""
    z = model(x)
    if z.ndim != 4 or z.shape[0] != x.shape[0] or z.shape[-2:] != x.shape[-2:]:
        expected = f"({x.shape[0]}, K, {x.shape[-2]}, {x.shape[-1]})"
        raise ValueError(f"expected logits {expected} from the model, found {tuple(z.shape)}")
    return z


def _resize(x: Tensor, size: Size, *, antialias: bool) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=antialias)


def _check(
    model: Model, image: Tensor, size: Size | None, window: Size | None, stride: Size | None, scales: Sequence[float]
) -> None:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise ValueError(f"image must be (3, H, W) or (B, 3, H, W), found {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"image must be floating point in [0, 1], found {image.dtype}")
    if isinstance(model, nn.Module) and model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    for name, value in (("size", size), ("window", window), ("stride", stride)):
        if value is not None and (len(value) != 2 or min(value) < 1):
            raise ValueError(f"{name} must be (height, width) in pixels, at least 1, found {value}")
    if stride is not None and window is not None and (stride[0] > window[0] or stride[1] > window[1]):
        raise ValueError(f"stride {stride} would leave gaps between windows of {window}")
    if stride is not None and window is None:
        raise ValueError("stride needs a window")
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be positive, at least one, found {tuple(scales)}")
