"""Parts of the problem small enough for a shared cache: chunks of channels, and tiles of pixels.

Not here: what is done with them (``tiled``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from crispseg.ops.semantic_difference.form import Form

CHANNELS = 128
"""Channels of u in a chunk: enough for products at their full rate, few enough for the copy of their weights."""
ELEMENTS = 2**20
"""Numbers in the D of a tile and chunk: 4 MiB of float32, a part of a shared cache."""
PIXELS = 512
"""The least pixels of a tile; below, the weights would be read more often than the pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A band of rows of one image, or several small images whole."""

    images: slice
    top: int
    bottom: int

    def of(self, x: Tensor) -> Tensor:
        """The pixels of a map, (C, images, rows, W): a view."""
        return x[self.images, :, self.top : self.bottom].transpose(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some channels of one group, or all channels of some groups."""

    groups: slice
    channels: slice
    """Of each of the groups."""
    inputs: slice
    """Of u."""
    outputs: slice
    """Of y."""

    def weight(self, weight: Tensor, form: Form) -> Tensor:
        """(groups, C_out / groups, channels · taps), contiguous, without the middle tap."""
        taps, h = self.taps(weight, form), len(form.half)
        return torch.cat([taps[..., :h], taps[..., h + 1 :]], dim=-1).flatten(2)

    def place(self, dW: Tensor, dweight: Tensor, form: Form) -> None:
        """Transpose of :meth:`weight`: put ``dW`` in its place in ``dweight``."""
        taps, h = self.taps(dweight, form), len(form.half)
        dW = dW.view(*taps.shape[:-1], 2 * h)
        taps[..., :h] = dW[..., :h]
        taps[..., h + 1 :] = dW[..., h:]

    def taps(self, weight: Tensor, form: Form) -> Tensor:
        """(groups, C_out / groups, channels, k²): a view, but for odd strides."""
        return weight.unflatten(0, (form.groups, -1))[self.groups, :, self.channels].flatten(3)


def chunks(weight: Tensor, form: Form) -> Iterator[Chunk]:
    """Chunks of at most ``CHANNELS``, or one chunk of all channels.

    One where S needs all channels, since it is then computed once; and in half precision, where partial sums of y would
    be rounded.
    """
    outputs, inputs = weight.shape[0] // form.groups, weight.shape[1]
    most = CHANNELS if form.per_channel and weight.dtype.itemsize >= 4 else max(1, inputs * form.groups)
    groups, channels = max(1, most // max(1, inputs)), min(most, max(1, inputs))
    for g in range(0, form.groups, groups):
        end = min(g + groups, form.groups)
        for c in range(0, inputs, channels):
            last = min(c + channels, inputs)
            yield Chunk(
                groups=slice(g, end),
                channels=slice(c, last),
                inputs=slice(g * inputs + c, (end - 1) * inputs + last),
                outputs=slice(g * outputs, end * outputs),
            )


def tiles(u: Tensor, chunk: Chunk, form: Form) -> Iterator[Tile]:
    """Tiles of a chunk, the first the largest."""
    B, _, H, W = u.shape
    channels = chunk.inputs.stop - chunk.inputs.start
    pixels = max(PIXELS, ELEMENTS // (2 * len(form.half) * channels))
    bands = -(-H * W // pixels)
    images, rows = (max(1, pixels // (H * W)), H) if bands == 1 else (1, -(-H // bands))
    for first in range(0, B, images):
        for top in range(0, H, rows):
            yield Tile(images=slice(first, min(first + images, B)), top=top, bottom=min(top + rows, H))
