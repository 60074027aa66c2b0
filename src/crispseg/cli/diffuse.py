"""Diffuse an image and look at it:
  crispseg diffuse photo.jpg --kind perona-malik --time 50 --out strip.png

One kind gives a strip of its stages; --kind all compares the four classical kinds and, with --guide, the semantic one
at the same time. A .gif moves through the stages. The guide is a mask (a picture of few colours, as large as the image)
or a feature map in .npy or .safetensors, of any size.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, one_of, path, positive, whole
from crispseg.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from crispseg.diffusion.diffusivity import Diffusivity

KINDS = ["all", "constant", "field", "perona-malik", "charbonnier", "edge-enhancing", "coherence-enhancing", "semantic"]
SOLVERS = ["auto", "explicit", "aos", "fed"]
WITHOUT_SCALE = ("constant", "field")
MOST_REGIONS = 256
ONE_CHANNEL = ("L", "P", "1", "I", "I;16", "I;16B", "F")
MASK_SCALE = 0.1
"""λ for masks: labels differ by 1 or more, so that S ≤ exp(−50) across a border."""


def flags() -> list[Flag]:
    """What to diffuse, how, for how long, and where the picture goes."""
    kinds, solvers = ", ".join(KINDS), ", ".join(SOLVERS)
    return [
        Flag(name="image", kind=path, metavar="IMAGE", help="picture to diffuse"),
        Flag(name="--kind", default="all", kind=one_of(*KINDS), metavar="KIND", help=f"which diffusivity D: {kinds}"),
        Flag(name="--guide", kind=path, metavar="FILE", help="mask, or features in .npy or .safetensors"),
        Flag(name="--time", kind=positive, default=40.0, metavar="T", help="in pixels²; D = 1 blurs by √(2T) pixels"),
        Flag(
            name="--scale",
            kind=positive,
            metavar="λ",
            help="what counts as an edge, in units of u (0 … 1) or v",
            shown="chosen from the picture",
        ),
        Flag(
            name="--stages",
            kind=whole(2, 200),
            metavar="N",
            help="pictures of one kind, or of a GIF",
            shown="5; in a GIF: 20",
        ),
        Flag(name="--solver", default="auto", kind=one_of(*SOLVERS), metavar="SOLVER", help=f"how to step: {solvers}"),
        Flag(name="--step", kind=positive, metavar="τ", help="largest step of the solver", shown="the solver's own"),
        Flag(name="--out", kind=path, required=True, metavar="FILE", help="picture to write: .png or .gif"),
    ]


def run(arguments: Any) -> int:
    """Read, diffuse, draw, write."""
    suffix = arguments.out.suffix.lower()
    _check(arguments, suffix)
    from crispseg.data import read_image
    from crispseg.diffusion.pictures import draw_comparison, draw_strip, encode, run_stages, stage_times
    from crispseg.files import write_bytes

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
    say(f"wrote {arguments.out}")
    return 0


def _check(arguments: Any, suffix: str) -> None:
    if suffix not in (".png", ".gif"):
        raise UsageError(f"--out: expected a name that ends in .png or .gif, found {str(arguments.out)!r}")
    for what, file in (("IMAGE", arguments.image), ("--guide", arguments.guide)):
        if file is not None and arguments.out.resolve() == file.resolve():
            raise UsageError(f"--out {arguments.out}: it would replace {what}; choose another name")
    if arguments.kind == "semantic" and arguments.guide is None:
        raise UsageError("--kind semantic needs --guide: a mask, or features in .npy or .safetensors")
    if arguments.guide is not None and arguments.kind not in ("all", "semantic"):
        raise UsageError(f"--guide goes with --kind semantic or all; {arguments.kind} looks at the image alone")
    if arguments.scale is not None and arguments.kind in WITHOUT_SCALE:
        raise UsageError(f"--scale does not apply: --kind {arguments.kind} ignores edges")
    if arguments.stages is not None and arguments.kind == "all" and suffix == ".png":
        raise UsageError("--stages goes with one --kind, or with a .gif; --kind all in a .png shows one time")


def _diffusivities(arguments: Any, u: "Tensor", guide: "Tensor | None") -> "dict[str, Diffusivity]":
    """What to run, by its caption."""
    import torch

    from crispseg.diffusion import EdgeEnhancing, Field, Semantic, charbonnier, constant, perona_malik
    from crispseg.diffusion.guides import SUFFIXES
    from crispseg.diffusion.tensors import CoherenceEnhancing

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


def _solver(arguments: Any, D: "Diffusivity") -> Any:
    """In a comparison ``aos`` stands back for ``fed`` where it cannot go."""
    from crispseg.diffusion import EdgeEnhancing
    from crispseg.diffusion.tensors import CoherenceEnhancing

    tensor = isinstance(D, EdgeEnhancing | CoherenceEnhancing)
    return "fed" if arguments.kind == "all" and arguments.solver == "aos" and tensor else arguments.solver


def _read_guide(path: Path, u: "Tensor") -> "Tensor":
    import numpy as np
    import torch

    from crispseg.data.images import bits_per_channel, open_picture
    from crispseg.diffusion.guides import SUFFIXES, read_features

    height, width = u.shape[-2:]
    if path.suffix.lower() in SUFFIXES:
        return read_features(path, (height, width))
    with open_picture(path) as picture:
        # Regions are told apart by their values, so these must be the file's own: 16 and 32 bits are not cut to 8.
        if picture.mode not in ONE_CHANNEL and bits_per_channel(picture) > 8:
            raise DataError(
                f"{path}: expected one channel, or colours of 8 bits a channel, found 16; save ids as 16-bit grey"
            )
        indexed = picture if picture.mode in ONE_CHANNEL else picture.convert("RGB")
        pixels = np.array(indexed)
    if pixels.shape[:2] != (height, width):
        raise DataError(
            f"{path}: a mask must have the image's size, {width}×{height}, found {pixels.shape[1]}×{pixels.shape[0]}"
        )
    colours = pixels if pixels.ndim == 2 else pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    values, regions = np.unique(colours, return_inverse=True)
    if len(values) > MOST_REGIONS:
        raise DataError(f"{path}: expected a mask of at most {MOST_REGIONS} colours, found {len(values)}")
    return torch.from_numpy(regions.reshape(height, width)).float()[None, None]
