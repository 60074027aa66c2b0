"""The camera: light, lens, sensor and file format, from a painted scene to the picture that a user has.

Not here: what is painted.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from crispseg.data.patchwork.surfaces import Array, Rng, cloud, slant


def developed(rng: Rng, picture: Array) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, 3) of a scene (H, W, 3) in about [0, 1]: each fault of a camera now and then."""
    x = picture * _light(rng, picture.shape[:2])[..., None] * (1 + rng.normal(0, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.15:  # haze
        x = x + rng.uniform(0.1, 0.5) * (rng.uniform(0.5, 1) - x)
    if rng.random() < 0.06:  # no colour
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1)
    x = np.clip(x, 0, 1) ** np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.6:  # lens, or a picture made larger
        x = blurred(x, rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:  # sharpened afterwards
        x = x + rng.uniform(0.3, 1.2) * (x - blurred(x, 1.0))
    noise = rng.standard_normal(x.shape, np.float32)
    if rng.random() < 0.4:  # after demosaicing: grains of more than a pixel
        noise = blurred(noise, 0.6) * 1.8
    x = x + rng.choice([0.003, 0.01, 0.03]) * noise * np.sqrt(np.clip(x, 0.05, 1))
    out = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    return _jpeg(out, int(rng.integers(25, 97))) if rng.random() < 0.7 else out


def blurred(x: Array, sigma: float) -> Array:
    """Gaussian blur of (H, W) or, channel by channel, (H, W, C)."""
    result: Array = gaussian_filter(x, (sigma, sigma, 0)[: x.ndim], truncate=3)
    return result


def _light(rng: Rng, size: tuple[int, int]) -> Array:
    light = 1 + rng.uniform(0, 0.3) * slant(rng, size) + rng.uniform(0, 0.1) * cloud(rng, size, 2.5)
    return (light * rng.uniform(0.75, 1.2)).astype(np.float32)


def _jpeg(picture: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))
