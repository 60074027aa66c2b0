"""Class scores instead of masks: the flags of ``evaluate`` for them, and reading them.

Not here: reading a file (``crispseg.data.scores``), the flag ``--refine`` (``_prediction``).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from crispseg.cli._parser import Flag, path
from crispseg.cli._prediction import refiner_of
from crispseg.errors import UsageError


def score_flags(of: frozenset[str]) -> list[Flag]:
    """What refining scores needs beside ``--refine``."""
    shared: dict[str, Any] = {"group": "data, for --pred", "of": of}
    return [
        Flag(name="--images", kind=path, metavar="DIR", help="pictures, same names: what --refine looks at", **shared),
        Flag(
            name="--probabilities",
            switch=True,
            default=False,
            help="the scores of --pred are probabilities, not logits, for --refine",
            **shared,
        ),
    ]


def score_maps_of(arguments: Any, classes: Any, progress: Callable[[Sequence[Any], str], Iterable[Any]]) -> Any:
    """What the scores in --pred say, or None if it holds masks. UsageError for a flag that says nothing about it."""
    from crispseg.data.scores import SCORES
    from crispseg.evaluation import holds_scores, mask_pairs, score_maps

    refiner = refiner_of(arguments)
    if not holds_scores(arguments.pred):
        for flag in ("--refine", "--images", "--probabilities"):
            if flag in arguments.given:
                raise UsageError(
                    f"{flag} goes with class scores: --run, or .npy or .npz files in --pred; these are masks"
                )
        return None
    for flag in ("--images", "--probabilities"):
        if flag in arguments.given and refiner is None:
            raise UsageError(f"{flag} goes with --refine; without, the largest score of a pixel is its class")
    if refiner is not None and arguments.images is None:
        raise UsageError("--refine looks at the pictures: give --images DIR")
    pairs = progress(mask_pairs(arguments.pred, arguments.label, SCORES), "evaluating")
    kind: Any = "probabilities" if arguments.probabilities else "logits"
    return score_maps(pairs, classes, refiner=refiner, images=arguments.images, kind=kind)
