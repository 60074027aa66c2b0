"""Make masks of any model crisp, using only the pictures:
  crispseg refine --image photos --mask masks --out crisp
With labels, adapt it to your model and pictures first, in minutes; it says on pictures held out whether that helps:
  crispseg refine --image photos --mask masks --fit labels --out mine.safetensors
  crispseg refine --image photos --mask masks --out crisp --weights mine.safetensors

Masks are PNG files of class indices, or class scores (K, height, width) in .npy or .npz files, probabilities unless
you pass --logits; scores give better results. A mask and its picture have the same name. Only pixels near a border of
the mask change. A mask that cannot be refined is named and skipped; all others are written; the exit code is then 1.
A --fit stops at the first bad file.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, positive, refuse_idle, whole
from crispseg.cli._prediction import refine_flag, refiner_of
from crispseg.config import RefinerFitting
from crispseg.errors import UsageError, printable
from crispseg.progress import track

DEFAULT = RefinerFitting()
FIT = frozenset({"--fit"})
PLAIN = frozenset({"masks alone"})


def flags() -> list[Flag]:
    """Where pictures and masks are, what refines them, and what is written."""
    first: dict[str, Any] = {"group": "used first", "kind": path, "required": True}
    return [
        Flag(name="--image", help="folder of pictures", metavar="DIR", **first),
        Flag(name="--mask", help="folder of masks (PNG) or scores (.npy, .npz), same names", metavar="DIR", **first),
        Flag(
            name="--out",
            help="folder for the refined masks; with --fit, the weights to write, .safetensors",
            metavar="DIR|FILE",
            **first,
        ),
        Flag(
            name="--logits",
            group="protocol",
            switch=True,
            default=False,
            help="the scores of --mask are logits, not probabilities",
        ),
        refine_flag(PLAIN, default="crispseg"),
        Flag(
            name="--weights",
            group="protocol",
            kind=path,
            metavar="FILE",
            help="of --fit, or of train-refiner; with --fit, to start from",
            shown="the package's",
        ),
        Flag(
            name="--tile",
            group="protocol",
            of=PLAIN,
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
        *_fit_flags(),
        Flag(
            name="--soft",
            group="output",
            of=PLAIN,
            switch=True,
            default=False,
            help="write probabilities (K, height, width) to NAME.npy, not classes",
        ),
        Flag(name="--overwrite", group="output", switch=True, default=False, help="replace files of OUT, or FILE"),
    ]


def _fit_flags() -> list[Flag]:
    shared: dict[str, Any] = {"group": "adapting", "of": FIT}
    return [
        Flag(
            name="--fit",
            group="adapting",
            kind=path,
            metavar="DIR",
            help="folder of labels (PNG), same names: adapt the refiner to these masks",
        ),
        Flag(name="--steps", kind=whole(1), default=DEFAULT.steps, metavar="N", help="at most", **shared),
        Flag(
            name="--batch-size", kind=whole(1), default=DEFAULT.batch_size, metavar="N", help="crops a step", **shared
        ),
        Flag(name="--lr", kind=positive, default=DEFAULT.lr, metavar="X", help="highest learning rate", **shared),
        Flag(name="--seed", kind=whole(0), default=DEFAULT.seed, metavar="N", help="of the parts and crops", **shared),
        Flag(
            name="--group",
            metavar="REGEX",
            help="pictures whose names match alike are held out together: frames of one film",
            **shared,
        ),
    ]


def run(arguments: Any) -> int:
    """Refine, then name what was left out; or fit, then say whether it helps."""
    fits = arguments.fit is not None
    what = "this adapts the refiner" if fits else "this refines masks"
    refuse_idle(arguments, flags(), FIT if fits else PLAIN, what)
    return _fit(arguments) if fits else _refine(arguments)


def _refine(arguments: Any) -> int:
    import dataclasses

    from crispseg.inference import refine_files
    from crispseg.refinement import LearnedRefiner

    refiner = refiner_of(arguments)
    options: dict[str, Any] = {"tile": arguments.tile, "weights": arguments.weights and str(arguments.weights)}
    for flag, value in options.items():
        if value is None:
            continue
        if not isinstance(refiner, LearnedRefiner):
            raise UsageError(f"--{flag} goes with --refine crispseg, found {arguments.refine}")
        refiner = dataclasses.replace(refiner, **{flag: value})
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


def _fit(arguments: Any) -> int:
    from crispseg.errors import require

    require("train", "lightning", "tensorboard", purpose="--fit")
    from crispseg.evaluation.verdict import points, title
    from crispseg.fitting import DECIDES, METRICS, fit_refiner

    if os.path.lexists(arguments.out) and not arguments.overwrite:
        raise UsageError(f"{arguments.out} is there already; choose another --out, or --overwrite")
    options = RefinerFitting(
        steps=arguments.steps, batch_size=arguments.batch_size, lr=arguments.lr, seed=arguments.seed
    )
    found = fit_refiner(
        arguments.image,
        arguments.mask,
        arguments.fit,
        arguments.out,
        options=options,
        weights=arguments.weights,
        group=arguments.group,
        kind="logits" if arguments.logits else "probabilities",
        ignore_index=arguments.ignore_index,
        say=say,
    )
    say(f"{arguments.out}, on the {found['pictures']['held_out']} pictures held out, in %:")
    for metric in METRICS:
        masks, before, after = (found[side][metric] for side in ("masks", "before", "after"))
        gain = found["differences"][metric]
        interval = "" if gain["low"] is None else f" [{points(gain['low'])}, {points(gain['high'])}]"
        say(
            f"  {title(metric):20} masks {_percent(masks)}  refined {_percent(before)}  fitted {_percent(after)}  "
            f"{points(gain['difference'])}{interval}"
        )
    if not found["steps"]:
        say("no step was better than the weights it started from: the file holds those")
    elif found["helps"]:
        say(f"the fit helps: {title(DECIDES)} rose, and the 95 % interval of the gain lies above 0")
    else:
        say(f"no gain is shown: the 95 % interval of {title(DECIDES)} does not lie above 0; more labels may show one")
    return 0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _progress(names: Sequence[str]) -> Iterable[str]:
    return track(names, "refining", len(names))
