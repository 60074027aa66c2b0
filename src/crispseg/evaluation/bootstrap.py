"""Other choices of images: a paired bootstrap over groups of images, every training (seed) seeing the same samples.

Not here: which metrics (``suite``), intervals (``intervals``), words about the result (``verdict``).
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from crispseg.errors import UsageError

Counts = Mapping[str, Tensor]
Measure = Callable[[Counts], Mapping[str, Tensor]]
CHUNK = 100
"""Replicates at a time: what bounds the memory."""


def group_images(names: Sequence[str], pattern: str | None) -> tuple[Tensor, list[str]]:
    """Return the group number of each image, (N,), and the groups' names: what ``pattern`` finds in the image's name.

    The first parenthesis of the pattern if it has one, else the whole match. None: every image is its own group. Raises
    ``UsageError`` for a pattern that is none or that a name does not contain.

    >>> group_images(["0001TP_008", "0001TP_009", "Seq05VD_001"], "^([^_]+)_")
    (tensor([0, 0, 1]), ['0001TP', 'Seq05VD'])
    """
    if pattern is None:
        return torch.arange(len(names)), list(names)
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group {pattern!r} is not a regular expression: {error}") from error
    keys = []
    for name in names:
        match = search.search(name)
        if match is None:
            raise UsageError(f"--group {pattern!r} finds nothing in the image name {name!r}")
        keys.append(match[1] if search.groups and match[1] is not None else match[0])
    known = {key: number for number, key in enumerate(sorted(set(keys)))}
    return torch.tensor([known[key] for key in keys]), list(known)


def paired_bootstrap(
    sides: Sequence[Sequence[Counts]], group: Tensor, measure: Measure, *, samples: int = 2000, seed: int = 0
) -> list[dict[str, Tensor]]:
    """Return bootstrap replicates of every metric of every training: for each side, name to (samples, S, …).

    One replicate: draw as many groups as there are, with replacement, the same for every side and training (paired);
    sum their integers; measure. How trainings differ is not drawn but estimated (:mod:`crispseg.evaluation.intervals`).

    Parameters
    ----------
    sides
        For each side its trainings, each the integers of every image: name to (N, …), images in one order throughout.
    group
        (N,), the group of each image: those of one group are drawn together or not at all.
    measure
        From summed counts with leading dimensions (…) to metrics with the same leading dimensions.
    samples, seed
        The number of replicates, and the seed of all draws.

    References
    ----------
    Efron, Tibshirani: An Introduction to the Bootstrap, 1993; Davison, Hinkley: Bootstrap Methods and their
    Application, 1997, section 3.8 (hierarchical data).

    Examples
    --------
    >>> right = {"right": torch.tensor([1, 1, 0, 1]), "all": torch.ones(4, dtype=torch.int64)}
    >>> share = lambda counts: {"share": counts["right"] / counts["all"]}
    >>> one, other = paired_bootstrap([[right], [right]], torch.arange(4), share, samples=50)
    >>> one["share"].shape, torch.equal(one["share"], other["share"])
    (torch.Size([50, 1]), True)
    """
    generator = torch.Generator().manual_seed(seed)
    number = int(group.max()) + 1
    sums = [{key: _by_group([run[key] for run in runs], group, number) for key in runs[0]} for runs in sides]
    parts: list[list[dict[str, Tensor]]] = [[] for _ in sides]
    for start in range(0, samples, CHUNK):
        draws = min(CHUNK, samples - start)
        picked = torch.randint(number, (draws, number), generator=generator)
        times = torch.zeros(draws, number, dtype=torch.float64).scatter_add_(
            1, picked, torch.ones(draws, number, dtype=torch.float64)
        )
        for part, side in zip(parts, sums):
            # Sums of integers in float64: exact below 2^53.
            drawn = {key: torch.einsum("rg,sg...->rs...", times, table) for key, table in side.items()}
            part.append(dict(measure({key: table.to(torch.int64) for key, table in drawn.items()})))
    return [{name: torch.cat([chunk[name] for chunk in part]) for name in part[0]} for part in parts]


def _by_group(runs: Sequence[Tensor], group: Tensor, number: int) -> Tensor:
    """(S, G, …) float64 sums over the images of each group."""
    stacked = torch.stack(list(runs)).double()
    out = stacked.new_zeros(stacked.shape[0], number, *stacked.shape[2:])
    return out.index_add_(1, group, stacked)
