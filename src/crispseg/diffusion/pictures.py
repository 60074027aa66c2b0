"""Pictures of diffusion: a strip of the stages of one run, a comparison of several kinds, and both as a moving GIF.

Not here: figures with axes (``docs/draw_method.py``), and where images and guides come from.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from crispseg.diffusion.diffusivity import Diffusivity
from crispseg.diffusion.solve import SolverName, Stage, solve

PANEL_WIDTH, GAP, CAPTION = 480, 12, 26
PAPER, INK = (255, 255, 255), (40, 40, 40)
FRAME_MILLISECONDS, LAST_MILLISECONDS = 200, 1500


def stage_times(time: float, count: int) -> list[float]:
    """``count`` moments from 0 to ``time``, evenly spaced in the blur σ = √(2t) that they stand for.

    >>> stage_times(16.0, 5)
    [0.0, 1.0, 4.0, 9.0, 16.0]
    """
    return [time * (k / (count - 1)) ** 2 for k in range(count)]


def run_stages(
    u: Tensor,
    diffusivity: Diffusivity,
    times: Sequence[float],
    *,
    guide: Tensor | None = None,
    solver: SolverName = "auto",
    step: float | None = None,
) -> list[Stage]:
    """Solve from each of ``times`` to the next; λ, where the data choose it, is settled once at the start."""
    D = diffusivity.prepared(u, guide)
    stages = [Stage(times[0], u)]
    for before, now in itertools.pairwise(times):
        after = solve(stages[-1].u, D, time=now - before, guide=guide, solver=solver, step=step)
        stages.append(Stage(now, after))
    return stages


def draw_strip(stages: Sequence[Stage]) -> Image.Image:
    """All stages of one run side by side, each with its time."""
    return _grid([(f"t = {stage.time:.4g}", stage.u) for stage in stages], columns=len(stages))


def draw_comparison(panels: Mapping[str, Tensor]) -> Image.Image:
    """Captioned images (1, C, H, W) in rows of three."""
    return _grid(list(panels.items()), columns=3)


def encode(frames: Sequence[Image.Image], suffix: str) -> bytes:
    """One frame as PNG (``suffix`` ".png"), or all as a GIF that loops and rests on its last frame (".gif")."""
    buffer = io.BytesIO()
    if suffix == ".png":
        frames[-1].save(buffer, "PNG")
    else:
        # A palette of its own for every frame, dithered: smooth shades show bands otherwise.
        indexed = [f.quantize(palette=f.quantize(256), dither=Image.Dither.FLOYDSTEINBERG) for f in frames]
        durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
        options: dict[str, Any] = {"save_all": True, "append_images": indexed[1:], "duration": durations, "loop": 0}
        indexed[0].save(buffer, "GIF", **options)
    return buffer.getvalue()


def _grid(panels: Sequence[tuple[str, Tensor]], columns: int) -> Image.Image:
    pictures = [(caption, _panel(u)) for caption, u in panels]
    width, height = pictures[0][1].size
    rows = -(-len(pictures) // columns)
    size = GAP + columns * (width + GAP), GAP + rows * (height + CAPTION)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (caption, picture) in enumerate(pictures):
        x, y = GAP + index % columns * (width + GAP), GAP + index // columns * (height + CAPTION)
        sheet.paste(picture, (x, y))
        draw.text((x, y + height + 3), caption, fill=INK, font=font)
    return sheet


def _panel(u: Tensor) -> Image.Image:
    """Values in [0, 1] as a picture: at most PANEL_WIDTH wide; small ones are enlarged in whole pixels."""
    values = u[0].clamp(0, 1).expand(3, *u.shape[-2:])
    array = (values * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    picture = Image.fromarray(array)
    if picture.width > PANEL_WIDTH:
        height = max(1, round(picture.height * PANEL_WIDTH / picture.width))
        return picture.resize((PANEL_WIDTH, height), Image.Resampling.BOX)
    factor = -(-PANEL_WIDTH // 2 // picture.width)  # rounded up: a panel is never narrower than its caption
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
