"""Make masks of any model crisp, using only the pictures:
  crispseg refine --image photos --mask masks --out crisp

Masks are PNG files of class indices, or class scores (K, height, width) in .npy or .npz files, probabilities unless
you pass --logits; scores give better results. A mask and its picture have the same name. Only pixels near a border of
the mask change. A mask that cannot be refined is named and skipped; all others are written; the exit code is then 1.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, whole
from crispseg.cli._prediction import refine_flag, refiner_of
from crispseg.errors import UsageError, printable
from crispseg.progress import track


def flags() -> list[Flag]:
    """Where pictures and masks are, what refines them, and what is written."""
    first: dict[str, Any] = {"group": "used first", "kind": path, "required": True, "metavar": "DIR"}
    return [
        Flag(name="--image", help="folder of pictures", **first),
        Flag(name="--mask", help="folder of masks (PNG) or scores (.npy, .npz), same names", **first),
        Flag(name="--out", help="folder for the refined masks", **first),
        Flag(
            name="--logits",
            group="protocol",
            switch=True,
            default=False,
            help="the scores of --mask are logits, not probabilities",
        ),
        refine_flag(default="crispseg"),
        Flag(
            name="--tile",
            group="protocol",
            kind=whole(1),
            metavar="PX",
            help="work in squares of this side: less memory; of --refine crispseg",
            shown="1024",
        ),
        Flag(
            name="--ignore-index",
            group="protocol",
            kind=whole(0, 255),
            metavar="V",
            default=255,
            help="void in masks: it stays where it is",
        ),
        Flag(
            name="--soft",
            group="output",
            switch=True,
            default=False,
            help="write probabilities (K, height, width) to NAME.npy, not classes",
        ),
        Flag(name="--overwrite", group="output", switch=True, default=False, help="replace files of OUT"),
    ]


def run(arguments: Any) -> int:
    """Refine, then name what was left out."""
    import dataclasses

    from crispseg.inference import refine_files
    from crispseg.refinement import LearnedRefiner

    refiner = refiner_of(arguments)
    if arguments.tile is not None:
        if not isinstance(refiner, LearnedRefiner):
            raise UsageError(f"--tile goes with --refine crispseg, found {arguments.refine}")
        refiner = dataclasses.replace(refiner, tile=arguments.tile)
    outcome = refine_files(
        arguments.image,
        arguments.mask,
        arguments.out,
        soft=arguments.soft,
        kind="logits" if arguments.logits else "probabilities",
        refiner=refiner,
        ignore_index=arguments.ignore_index,
        overwrite=arguments.overwrite,
        track=_progress,
    )
    count = len(outcome.written)
    say(f"{arguments.out}: {count} mask{'s' * (count != 1)} written")
    for error in outcome.failed:
        print(printable(f"crispseg: left out: {error}"), file=sys.stderr)
    return 1 if outcome.failed else 0


def _progress(names: Sequence[str]) -> Iterable[str]:
    return track(names, "refining", len(names))
