"""What happens to an image and its label together before a network sees them: torchvision v2 transforms.

Images are uint8 ``tv_tensors.Image`` (3, H, W), labels uint8 ``tv_tensors.Mask`` (H, W). An image is resized bilinearly
with anti-aliasing; a label by the nearest pixel **centre** (``NEAREST_EXACT``: plain ``NEAREST`` would shift every
border by up to half a pixel against the image). Random numbers come from torch's global CPU generator, as in all of
torchvision; the data set seeds it for each item. Sizes are (height, width) in pixels.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

Size = tuple[int, int]
FILL = (124, 116, 104)  # the mean colour of ImageNet: near zero once a model has normalised it


def train_transform(
    crop: Size,
    *,
    ignore_index: int = 255,
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    jitter: float = 0.3,
    max_share: float = 1.0,
) -> v2.Transform:
    """Random scale and crop, horizontal flip, colour jitter: images and labels of size ``crop``.

    ``flip`` is a probability; ``jitter`` the strength of changes in brightness, contrast and saturation; for ``scale``
    and ``max_share`` see :class:`RandomScaledCrop`.
    """
    steps: list[v2.Transform] = [RandomScaledCrop(crop, scale=scale, max_share=max_share, ignore_index=ignore_index)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose(steps)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resize an image (3, H, W) bilinearly with anti-aliasing."""
    same = tuple(image.shape[-2:]) == tuple(size)
    return image if same else F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


def resize_label(label: Tensor, size: Size) -> Tensor:
    """Resize a label map (H, W) to the value of the nearest pixel centre.

    >>> resize_label(torch.arange(9, dtype=torch.uint8).reshape(3, 3), (1, 1))
    tensor([[4]], dtype=torch.uint8)
    """
    if tuple(label.shape[-2:]) == tuple(size):
        return label
    rows, columns = (_centres(n, m) for n, m in zip(label.shape[-2:], size, strict=True))
    return label[..., rows, :][..., columns]


def _centres(n: int, m: int) -> Tensor:
    """Of n pixels, the m that hold the centres of m equal parts: ⌊(i + ½)·n / m⌋, in integers and therefore exact."""
    return (2 * torch.arange(m) + 1) * n // (2 * m)


class RandomScaledCrop(v2.Transform):
    """A window of random size and place, resized to ``crop``: random scaling and cropping in one cheap step.

    The scale s is drawn log-uniformly from ``scale``; the window has crop / s pixels and is cut before it is resized,
    so the cost does not grow with the image. Where the window leaves the image, the label is void. With ``max_share``
    < 1 a window is drawn again (up to 10 times) while one class fills more than that share of its valid pixels, so that
    crops of nothing but road are rare.
    """

    def __init__(
        self, crop: Size, *, scale: tuple[float, float] = (0.5, 2.0), max_share: float = 1.0, ignore_index: int = 255
    ) -> None:
        super().__init__()
        if min(crop) < 1:
            raise ValueError(f"crop must be at least 1×1, found {crop}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low ≤ high, found {scale}")
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must be in (0, 1], found {max_share}")
        self.crop, self.scale, self.max_share, self.ignore_index = crop, scale, max_share, ignore_index

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the window."""
        label = next((x for x in flat_inputs if isinstance(x, tv_tensors.Mask)), None)
        height, width = F.get_size(flat_inputs[0])
        window = self._draw(height, width)
        for _ in range(9 if self.max_share < 1 and label is not None else 0):
            if label is None or self._largest_share(label, *window) <= self.max_share:
                break
            window = self._draw(height, width)
        return dict(zip(("top", "left", "height", "width"), window, strict=True))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut the window out of an image or a label and resize it."""
        if isinstance(inpt, tv_tensors.Mask):
            part = _cut(inpt, params, (self.ignore_index,))
            return tv_tensors.Mask(resize_label(part, self.crop))
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.Image(resize_image(_cut(inpt, params, FILL), self.crop))
        return inpt

    def _draw(self, height: int, width: int) -> tuple[int, int, int, int]:
        low, high = map(math.log, self.scale)
        s = math.exp(low + (high - low) * torch.rand(()).item())
        h, w = (max(1, round(n / s)) for n in self.crop)
        top, left = (_between(min(0, n - m), max(0, n - m)) for n, m in ((height, h), (width, w)))
        return top, left, h, w

    def _largest_share(self, label: Tensor, top: int, left: int, height: int, width: int) -> float:
        part = label.as_subclass(Tensor)[max(0, top) : top + height, max(0, left) : left + width]
        counts = torch.bincount(part[part != self.ignore_index].flatten(), minlength=1)
        return float(counts.max() / counts.sum().clamp(min=1))


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()).item())


def _cut(x: Tensor, params: dict[str, int], fill: tuple[int, ...]) -> Tensor:
    """The window (…, h, w) of x (…, H, W), ``fill`` (one value a channel) where it leaves x."""
    top, left, h, w = params["top"], params["left"], params["height"], params["width"]
    x = x.as_subclass(Tensor)
    inside = x[..., max(0, top) : top + h, max(0, left) : left + w]
    if inside.shape[-2:] == (h, w):
        return inside
    window = torch.tensor(fill, dtype=x.dtype)[:, None, None].expand(-1, h, w)
    window = window.clone() if x.ndim == 3 else window[0].clone()
    y, x0 = max(0, -top), max(0, -left)
    window[..., y : y + inside.shape[-2], x0 : x0 + inside.shape[-1]] = inside
    return window
