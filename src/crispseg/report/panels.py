"""Pictures beside pictures: crops where it matters, frames that show where a crop is from, and a sheet with captions.

Not here: colours of maps (``colours``), HTML (``page``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from crispseg.report.colours import Colour, Picture

FRAME: Colour = (255, 255, 255)


class Box(NamedTuple):
    """A window of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop(picture: Picture, box: Box) -> Picture:
    """Return the part of ``picture`` (or of any array (H, W, …)) inside ``box``."""
    return picture[box.top : box.top + box.height, box.left : box.left + box.width]


def worst_box(weight: Tensor, height: int, width: int) -> Box:
    """Return the window of that size, or the map's if it is smaller, in which ``weight`` (H, W) has the largest sum.

    >>> weight = torch.zeros(10, 10)
    >>> weight[6, 7] = 1
    >>> box = worst_box(weight, 4, 4)
    >>> box.top <= 6 < box.top + 4 and box.left <= 7 < box.left + 4
    True
    """
    height, width = min(height, weight.shape[0]), min(width, weight.shape[1])
    table = F.pad(weight.double(), (1, 0, 1, 0)).cumsum(0).cumsum(1)  # what lies above and to the left of each corner
    rows = table[height:] - table[:-height]
    sums = rows[:, width:] - rows[:, :-width]
    best = torch.nonzero(sums >= sums.max() - 1e-9 * table[-1, -1].abs()).double()
    top, left = best[(best - best.mean(0)).norm(dim=1).argmin()].int().tolist()  # the middle one of equals
    return Box(top, left, height, width)


def framed(picture: Picture, box: Box, colour: Colour = FRAME) -> Picture:
    """Return a copy of ``picture`` with the outline of ``box`` drawn on it, dark-edged so that it shows on anything."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box.left, box.top, box.left + box.width - 1, box.top + box.height - 1
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0))
    draw.rectangle((left, top, right, bottom), outline=colour)
    return np.asarray(image)


def sheet(
    rows: Sequence[Sequence[Picture]], captions: Sequence[str], *, scale: int = 1, gap: int = 6, font_size: int = 15
) -> Picture:
    """Return rows of pictures on white with one caption a column.

    Every picture is brought, pixel by pixel, to ``scale`` times the width of the topmost one in its column, so that a
    crop in the second row is an enlargement.

    Raises
    ------
    ValueError
        A row that has not one picture for each caption.
    """
    if any(len(row) != len(captions) for row in rows):
        raise ValueError(f"expected {len(captions)} pictures in each row, found {[len(row) for row in rows]}")
    widths = [scale * picture.shape[1] for picture in rows[0]]
    images = [[_resized(picture, width) for picture, width in zip(row, widths)] for row in rows]
    head = round(font_size * 1.7)
    height = head + sum(max(image.height for image in row) + gap for row in images) - gap
    page = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), height), (255, 255, 255))
    draw, font = ImageDraw.Draw(page), _font(font_size)
    lefts = np.cumsum([0, *(w + gap for w in widths)]).tolist()
    for left, width, caption in zip(lefts, widths, captions):
        draw.text((left + width / 2, head / 2), caption, fill=(40, 40, 40), font=font, anchor="mm")
    top = head
    for row in images:
        for left, image in zip(lefts, row):
            page.paste(image, (left, top))
        top += max(image.height for image in row) + gap
    return np.asarray(page)


def _resized(picture: Picture, width: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.NEAREST)


def _font(size: int) -> ImageFont.FreeTypeFont:
    # the font that matplotlib ships, so that captions look the same on every machine
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
