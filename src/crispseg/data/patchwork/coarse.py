"""Coarse masks made of exact ones, by the errors that networks and annotators make. They are probabilities.

Networks answer on a grid of stride 4 to 32: a thing is moved, blurred, fattened or lost there, and sometimes taken for
another. Annotators draw polygons, tools fill blocks and superpixels, scripts erode, dilate and shift.

Not here: pictures.
"""

import contourpy
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy import ndimage

from crispseg.data.patchwork.surfaces import Array, Rng, Size

Labels = npt.NDArray[np.integer]
STRIDES = (4.0, 32.0)


def coarse(rng: Rng, label: Labels, classes: int) -> Array:
    """Return probabilities (K, H, W), float32, of labels (H, W) in 0 … K − 1, coarsened in a random way.

    >>> label = np.zeros((64, 64), np.uint8)
    >>> label[:, 32:] = 1
    >>> p = coarse(np.random.default_rng(0), label, 2)
    >>> p.shape, bool(np.allclose(p.sum(0), 1, atol=1e-4))
    ((2, 64, 64), True)
    """
    if rng.random() < 0.7:
        low, high = np.log(STRIDES)
        p = predicted(rng, label, classes, float(np.exp(rng.uniform(low, high))))
        return one_hot(p.argmax(0), classes) if rng.random() < 0.25 else p
    kinds = (polygons, blocks, shifted, morphed, without_thin, superpixels)
    which = int(rng.integers(len(kinds) + 1))
    label = kinds[which](rng, label, classes) if which < len(kinds) else label  # now and then, nothing is wrong
    return one_hot(label, classes)


def one_hot(label: Labels, classes: int) -> Array:
    """Labels (H, W) as probabilities (K, H, W)."""
    return (np.arange(classes)[:, None, None] == label[None]).astype(np.float32)


def predicted(rng: Rng, label: Labels, classes: int, stride: float) -> Array:
    """What a network with a grid of ``stride`` pixels would say."""
    height, width = label.shape
    grid = (max(2, round(height / stride)), max(2, round(width / stride)))
    moved = _warped(rng, label, stride * rng.uniform(0, 0.35), grid)
    if rng.random() < 0.25:
        moved = without_thin(rng, moved, classes, stride / 2)
    p = torch.from_numpy(one_hot(moved, classes))[None]
    p = F.interpolate(p, grid, mode="area")
    if rng.random() < 0.7:
        p = _smooth(p, rng.uniform(0.2, 0.9))
    z = torch.log(p + 10 ** rng.uniform(-3.5, -1.3)) * rng.uniform(0.7, 2.0)
    z = z + torch.from_numpy(rng.normal(0, rng.uniform(0, 0.7), (1, classes, 1, 1)).astype(np.float32))
    z = z + rng.uniform(0, 1.0) * _smooth(_normal(rng, (1, classes, *grid)), 0.7) * 1.5
    if rng.random() < 0.35:  # taken for another class, here and there
        wrong = F.interpolate(_normal(rng, (1, classes, 3, 3)), grid, mode="bicubic")
        z = z + rng.uniform(1, 4) * F.relu(wrong - rng.uniform(0.8, 2))
    if rng.random() < 0.5:
        return _upsampled(z, (height, width), rng).softmax(1)[0].numpy()
    p = _upsampled(z.softmax(1), (height, width), rng)
    return (p / p.sum(1, keepdim=True))[0].numpy()


def polygons(rng: Rng, label: Labels, classes: int, tolerance: float | None = None) -> Labels:
    """As an annotator outlines: contours with few corners, straight in between. ``tolerance``: in px."""
    tolerance = rng.uniform(1.5, 7) if tolerance is None else tolerance
    outlines: list[tuple[float, int, npt.NDArray[np.floating]]] = []
    for c in np.unique(label).tolist():
        for line in contourpy.contour_generator(z=np.pad((label == c).astype(np.float32), 1)).lines(0.5):
            points = np.asarray(line) - 1
            if (area := _area(points)) > 0:  # an outer contour: that of a hole is the outer one of what is in it
                outlines.append((area, c, points))
    image = Image.fromarray(label.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _, c, points in sorted(outlines, key=lambda outline: -outline[0]):  # what is inside another is smaller
        corners = _simplified(points, tolerance)
        if len(corners) > 3:
            draw.polygon([tuple(p) for p in corners.tolist()], fill=c)
    return np.asarray(image)


def blocks(rng: Rng, label: Labels, classes: int, side: int | None = None) -> Labels:
    """Squares of ``side`` pixels, each of the class that most of it has."""
    side = int(rng.integers(3, 17)) if side is None else side
    height, width = label.shape
    p = F.avg_pool2d(torch.from_numpy(one_hot(label, classes))[None], side, ceil_mode=True)
    small = p.argmax(1)[0].numpy()
    return small.repeat(side, 0).repeat(side, 1)[:height, :width]


def shifted(rng: Rng, label: Labels, classes: int) -> Labels:
    """Moved by up to 6 pixels."""
    dy, dx = rng.integers(-6, 7, 2)
    padded = np.pad(label, 6, mode="edge")
    return padded[6 + dy : 6 + dy + label.shape[0], 6 + dx : 6 + dx + label.shape[1]]


def morphed(rng: Rng, label: Labels, classes: int) -> Labels:
    """One class after the other grown into its neighbours, or eaten by them."""
    out = label.copy()
    for c in rng.permutation(classes)[: int(rng.integers(1, classes + 1))].tolist():
        inside, radius = out == c, rng.uniform(1, 7)
        if inside.any() and not inside.all():
            if rng.random() < 0.5:
                out[ndimage.distance_transform_edt(~inside) <= radius] = c
            else:
                far, nearest = ndimage.distance_transform_edt(inside, return_indices=True)
                eaten = inside & (far <= radius)
                out[eaten] = out[nearest[0][eaten], nearest[1][eaten]]
    return out


def without_thin(rng: Rng, label: Labels, classes: int, radius: float | None = None) -> Labels:
    """What is thinner than about ``radius`` taken by what surrounds it."""
    radius = rng.uniform(1.5, 6) if radius is None else radius
    p = ndimage.gaussian_filter(one_hot(label, classes), (0, radius, radius), truncate=2.5)
    return p.argmax(0).astype(np.uint8)


def superpixels(rng: Rng, label: Labels, classes: int) -> Labels:
    """Cells of jittered centres, each of the class at its centre."""
    height, width = label.shape
    step = rng.uniform(4, 16)
    y, x = np.mgrid[step / 2 : height : step, step / 2 : width : step]
    centres = np.stack([y, x], -1).reshape(-1, 2) + rng.uniform(-0.4, 0.4, (y.size, 2)) * step
    at = centres.astype(int).clip(0, np.array(label.shape) - 1)
    marks = np.full(label.shape, -1)
    marks[at[:, 0], at[:, 1]] = label[at[:, 0], at[:, 1]]
    nearest = ndimage.distance_transform_edt(marks < 0, return_distances=False, return_indices=True)
    return marks[nearest[0], nearest[1]].astype(np.uint8)


def _warped(rng: Rng, label: Labels, amount: float, grid: Size) -> Labels:
    """Labels pulled about by a smooth random field of ``amount`` pixels."""
    field = F.interpolate(_normal(rng, (1, 2, *grid)), label.shape, mode="bilinear")[0].numpy() * amount
    y, x = np.mgrid[: label.shape[0], : label.shape[1]]
    y, x = (y + field[0]).round().astype(int), (x + field[1]).round().astype(int)
    return label[y.clip(0, label.shape[0] - 1), x.clip(0, label.shape[1] - 1)]


def _normal(rng: Rng, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, np.float32))


def _smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma)))


def _upsampled(x: torch.Tensor, size: Size, rng: Rng) -> torch.Tensor:
    mode = "bilinear" if rng.random() < 0.9 else "nearest"
    if mode == "nearest":
        return F.interpolate(x, size, mode=mode)
    return F.interpolate(x, size, mode=mode, align_corners=bool(rng.random() < 0.25))


def _simplified(points: npt.NDArray[np.floating], tolerance: float) -> npt.NDArray[np.floating]:
    """Ramer's and Douglas and Peucker's algorithm: the fewest corners that stay within ``tolerance`` of the line."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    stack = [(0, len(points) - 1)]
    if np.allclose(points[0], points[-1]) and len(points) > 3:  # closed: the corner farthest from the start is one
        far = int(np.argmax(np.hypot(*(points - points[0]).T)))
        keep[far] = True
        stack = [(0, far), (far, len(points) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        (x, y), inner = points[last] - points[first], points[first + 1 : last] - points[first]
        distance = np.abs(x * inner[:, 1] - y * inner[:, 0]) / (np.hypot(x, y) + 1e-9)
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            keep[first + 1 + worst] = True
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return points[keep]


def _area(line: npt.NDArray[np.floating]) -> float:
    """The area inside a closed contour, negative for that of a hole: contourpy keeps what is high on one side."""
    x, y = line[:, 0], line[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
