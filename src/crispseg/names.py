"""The words that a configuration may hold, as types; names that become paths, and patterns. No torch: the command
reads them.

Not here: what a word stands for; each is defined where its functions are.
"""

import glob
import re
import unicodedata
from pathlib import Path
from typing import Literal, get_args

SimilarityName = Literal["charbonnier", "gaussian", "cosine", "one"]
SIMILARITY: SimilarityName = "one"
"""S of a neck, unless one is asked for: the difference alone. It was level with the best S but on one data set."""
Place = Literal["head", "encoder"]
Side = Literal["output", "input"]
Normalise = Literal["imagenet", "none"]
LossName = Literal[
    "cross_entropy",
    "boundary_weighted",
    "boundary",
    "active_boundary",
    "boundary_dou",
    "rmi",
    "lovasz",
    "dice",
    "focal",
    "skeleton_recall",
]
LOSSES: tuple[LossName, ...] = get_args(LossName)
RefinerName = Literal["crispseg", "crf", "guided", "bilateral", "diffusion", "rankseg"]
REFINERS: tuple[RefinerName, ...] = get_args(RefinerName)


def stays_inside(name: str) -> bool:
    """Whether a name that somebody else chose stays inside the folder that it is joined to, and is a plain one.

    >>> [stays_inside(name) for name in ("val", "city/a.b", "../x", "/etc", "a/../b", "c:x", "a\\nb", "")]
    [True, True, False, False, False, False, False, False]
    """
    parts = re.split(r"[/\\]", name)
    plain = not any(unicodedata.category(letter) == "Cc" for letter in name)
    return plain and not {"", ".", ".."}.intersection(parts) and not re.match(r"[A-Za-z]:", name)


def matching(pattern: str | Path) -> list[Path]:
    """Return the paths that a pattern means, sorted; ``**`` means any folders.

    A word without ``*``, ``?`` and ``[…]``, or a path that is there by this very name, means itself.
    """
    if Path(pattern).exists() or not glob.has_magic(str(pattern)):
        return [Path(pattern)]
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
