"""Diffuse an image and look at it: crispseg diffuse photo.jpg --kind perona-malik --time 50 --out strip.png

One kind gives a strip of its stages; --kind all compares the four classical kinds and, with --guide, the semantic one
at the same time. A .gif moves through the stages. The guide is a mask (a picture of few colours, as large as the image)
or a feature map in .npy or .safetensors, of any size.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.data import read_image
from crispseg.data.images import open_picture
from crispseg.diffusion import EdgeEnhancing, Field, Semantic, charbonnier, constant, perona_malik
from crispseg.diffusion.diffusivity import Diffusivity
from crispseg.diffusion.guides import SUFFIXES, read_features
from crispseg.diffusion.pictures import draw_comparison, draw_strip, encode, run_stages, stage_times
from crispseg.diffusion.tensors import CoherenceEnhancing
from crispseg.errors import DataError, UsageError
from crispseg.files import write_bytes

SUMMARY = "see an image diffuse: the classical kinds and the semantic one"
KINDS = ["all", "constant", "field", "perona-malik", "charbonnier", "edge-enhancing", "coherence-enhancing", "semantic"]
MOST_REGIONS = 256
MASK_SCALE = 0.1
"""λ for masks: labels differ by 1 or more, so that S ≤ exp(−50) across a border."""


def add_arguments(parser: Any) -> None:
    """What to diffuse, how, for how long, and where the picture goes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="picture to diffuse")
    parser.add_argument("--kind", default="all", choices=KINDS, help="which diffusivity D")
    parser.add_argument("--guide", type=Path, metavar="FILE", help="mask, or features in .npy or .safetensors")
    parser.add_argument("--time", type=float, default=40.0, metavar="T", help="in pixels²; D = 1 blurs by √(2T) pixels")
    parser.add_argument("--scale", type=float, metavar="λ", help="what counts as an edge, in units of u (0 … 1) or v")
    parser.add_argument("--stages", type=int, metavar="N", help="pictures in a strip (default: 5; in a GIF: 20)")
    parser.add_argument("--solver", default="auto", choices=["auto", "explicit", "aos", "fed"], help="how to step")
    parser.add_argument("--step", type=float, metavar="τ", help="largest step of the solver")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write: .png or .gif")


def run(arguments: Any) -> int:
    """Read, diffuse, draw, write."""
    suffix = arguments.out.suffix.lower()
    _check(arguments, suffix)
    u = read_image(arguments.image)[None] / 255
    guide = None if arguments.guide is None else _read_guide(arguments.guide, u)
    times = stage_times(arguments.time, arguments.stages or (5 if suffix == ".png" else 20))
    if arguments.kind == "all" and suffix == ".png":
        times = [0.0, arguments.time]
    runs = {}
    for caption, D in _diffusivities(arguments, u, guide).items():
        try:
            runs[caption] = run_stages(u, D, times, guide=guide, solver=_solver(arguments, D), step=arguments.step)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if arguments.kind != "all":
        (stages,) = runs.values()
        frames = [draw_strip(stages)] if suffix == ".png" else [draw_strip([stage]) for stage in stages]
    else:
        shown = range(len(times)) if suffix == ".gif" else [-1]
        frames = [
            draw_comparison(
                {f"the image; the others at t = {times[k]:.4g}": u} | {name: r[k].u for name, r in runs.items()}
            )
            for k in shown
        ]
    write_bytes(arguments.out, encode(frames, suffix))
    if arguments.kind == "all" and guide is None:
        print("no --guide: the semantic kind is left out")
    print(f"wrote {arguments.out}")
    return 0


def _check(arguments: Any, suffix: str) -> None:
    if suffix not in (".png", ".gif"):
        raise UsageError(f"--out: expected a name that ends in .png or .gif, found {str(arguments.out)!r}")
    if arguments.kind == "semantic" and arguments.guide is None:
        raise UsageError("--kind semantic needs --guide: a mask, or features in .npy or .safetensors")
    for name in ("time", "scale", "step"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name}: expected a positive number, found {value}")
    if arguments.stages is not None and not 2 <= arguments.stages <= 200:
        raise UsageError(f"--stages: expected 2 to 200, found {arguments.stages}")


def _diffusivities(arguments: Any, u: Tensor, guide: Tensor | None) -> dict[str, Diffusivity]:
    """What to run, by its caption."""
    scale, ramp = arguments.scale, torch.linspace(0, 1, u.shape[-1]).expand(1, 1, *u.shape[-2:])
    mask = arguments.guide is not None and arguments.guide.suffix.lower() not in SUFFIXES
    of: dict[str, tuple[str, Diffusivity]] = {
        "constant": ("D = 1: isotropic, linear", constant()),
        "field": ("D(x), from 0 left to 1 right", Field(ramp)),
        "perona-malik": ("Perona-Malik: slow at edges of u", perona_malik(scale)),
        "charbonnier": ("Charbonnier: slow at edges of u", charbonnier(scale)),
        "edge-enhancing": ("tensor: along an edge, not across", EdgeEnhancing(scale=scale)),
        "coherence-enhancing": ("tensor: along coherent structure", CoherenceEnhancing(scale=scale)),
        "semantic": ("semantic: edges of the guide", Semantic("gaussian", scale or (MASK_SCALE if mask else None))),
    }
    if arguments.kind != "all":
        return dict([of[arguments.kind]])
    names = ["constant", "field", "perona-malik", "edge-enhancing", *(["semantic"] if guide is not None else [])]
    return dict(of[name] for name in names)


def _solver(arguments: Any, D: Diffusivity) -> Any:
    """In a comparison ``aos`` stands back for ``fed`` where it cannot go."""
    tensor = isinstance(D, EdgeEnhancing | CoherenceEnhancing)
    return "fed" if arguments.kind == "all" and arguments.solver == "aos" and tensor else arguments.solver


def _read_guide(path: Path, u: Tensor) -> Tensor:
    height, width = u.shape[-2:]
    if path.suffix.lower() in SUFFIXES:
        return read_features(path, (height, width))
    with open_picture(path) as picture:
        indexed = picture if picture.mode in ("L", "P", "1") else picture.convert("RGB")
        pixels = np.array(indexed).astype(np.int64)
    if pixels.shape[:2] != (height, width):
        raise DataError(
            f"{path}: a mask must have the image's size, {width}×{height}, found {pixels.shape[1]}×{pixels.shape[0]}"
        )
    colours = pixels if pixels.ndim == 2 else pixels @ np.array([1 << 16, 1 << 8, 1])
    values, regions = np.unique(colours, return_inverse=True)
    if len(values) > MOST_REGIONS:
        raise DataError(f"{path}: expected a mask of at most {MOST_REGIONS} colours, found {len(values)}")
    return torch.from_numpy(regions.reshape(height, width)).float()[None, None]
