"""The canvas: a picture and its label map, painted shape by shape from back to front.

A shape is drawn as a mask at three times the resolution. The share of a pixel that the mask covers blends the picture
(anti-aliasing); the pixel's centre, which a factor of three has and two has not, decides the label. So the truth is
exact to the pixel, and the picture shows no staircase that would give it away.

Not here: what the shapes are (``things``) and how they are filled (``textures``).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.floating]
Points = list[tuple[float, float]]
Shape = Callable[[ImageDraw.ImageDraw], None]
FACTOR = 3


class Canvas:
    """A picture (H, W, 3) in [0, 1] and its labels (H, W), both filled by :meth:`paint`."""

    def __init__(self, height: int, width: int, background: int, texture: Array) -> None:
        self.height, self.width = height, width
        self.picture: Array = np.broadcast_to(texture, (height, width, 3)).astype(np.float32)
        self.label = np.full((height, width), background, np.uint8)

    def paint(self, label: int, texture: Array, *shapes: Shape) -> None:
        """Fill the union of the shapes with ``texture``, (H, W, 3) or a colour (3,), and label it."""
        window, share, centre = self._mask(shapes)
        part = self.picture[window]
        part += share * ((texture if texture.ndim == 1 else texture[window]) - part)
        self.label[window][centre] = label

    def shade(self, light: float, *shapes: Shape) -> None:
        """Multiply the picture by ``light`` inside the shapes; the labels stay (a shadow is no class)."""
        window, share, _ = self._mask(shapes)
        self.picture[window] *= 1 - share * (1 - light)

    def _mask(self, shapes: tuple[Shape, ...]) -> tuple[tuple[slice, slice], Array, npt.NDArray[np.bool_]]:
        """The window of pixels that the shapes touch; in it, the covered share and whether the centre is covered."""
        mask = Image.new("L", (self.width * FACTOR, self.height * FACTOR))
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            shape(draw)
        left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
        x0, y0, x1, y1 = left // FACTOR, top // FACTOR, -(-right // FACTOR), -(-bottom // FACTOR)
        part = mask.crop((x0 * FACTOR, y0 * FACTOR, x1 * FACTOR, y1 * FACTOR))
        share = np.asarray(part.reduce(FACTOR), np.float32)[..., None] / 255
        centre = np.asarray(part)[FACTOR // 2 :: FACTOR, FACTOR // 2 :: FACTOR] > 0
        return (slice(y0, y1), slice(x0, x1)), share, centre


def polygon(points: Points) -> Shape:
    """A filled polygon. Coordinates are pixels: (0, 0) is the corner of the top left pixel, y points down."""
    return lambda draw: draw.polygon(_fine(points), fill=255)


def box(left: float, top: float, right: float, bottom: float) -> Shape:
    """A filled upright rectangle."""
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def disc(x: float, y: float, radius: float, squeeze: float = 1.0) -> Shape:
    """A filled ellipse, ``squeeze`` times as high as it is wide."""
    corners = _fine([(x - radius, y - radius * squeeze), (x + radius, y + radius * squeeze)])
    return lambda draw: draw.ellipse(corners, fill=255)


def line(points: Points, width: float) -> Shape:
    """A line of ``width`` pixels with round joints."""
    return lambda draw: draw.line(_fine(points), fill=255, width=max(1, round(width * FACTOR)), joint="curve")


def _fine(points: Points) -> Points:
    return [(x * FACTOR, y * FACTOR) for x, y in points]
