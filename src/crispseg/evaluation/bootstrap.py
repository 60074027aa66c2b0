"""How sure is a difference: a paired bootstrap over groups of images, with the trainings (seeds) as the outer level.

Not here: which metrics (``suite``), words about the result (``verdict``).
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
        raise UsageError(f"--group {pattern!r} is no regular expression: {error}") from error
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
) -> dict[str, Tensor]:
    """Return bootstrap replicates of every metric for every side: name to (sides, samples, …).

    One replicate: draw as many groups as there are, with replacement, the same for every side and training (paired);
    sum their integers; measure. Then, for each side on its own, draw as many trainings as it has, with replacement, and
    take the mean over them. A side with one training varies over images alone. With S of them, their deviations from
    the mean are stretched by √(S / (S − 1)), without which S values drawn from S are too alike by just that factor.

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
    >>> draws = paired_bootstrap([[right], [right]], torch.arange(4), share, samples=50)["share"]
    >>> draws.shape, torch.equal(draws[0], draws[1])
    (torch.Size([2, 50]), True)
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
        for at, side in enumerate(sums):
            # Sums of integers in float64: exact below 2^53.
            drawn = {key: torch.einsum("rg,sg...->rs...", times, table) for key, table in side.items()}
            values = measure({key: table.to(torch.int64) for key, table in drawn.items()})
            trainings = torch.randint(len(sides[at]), (draws, len(sides[at])), generator=generator)
            parts[at].append({name: _over_trainings(value, trainings) for name, value in values.items()})
    names = parts[0][0].keys()
    return {name: torch.stack([torch.cat([part[name] for part in side]) for side in parts]) for name in names}


def interval(replicates: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the percentile interval over the first dimension, replicates that could not be measured (NaN) left out."""
    tail = (1 - level) / 2
    bounds = torch.nanquantile(replicates.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return bounds[0], bounds[1]


def _by_group(runs: Sequence[Tensor], group: Tensor, number: int) -> Tensor:
    """(S, G, …) float64 sums over the images of each group."""
    stacked = torch.stack(list(runs)).double()
    out = stacked.new_zeros(stacked.shape[0], number, *stacked.shape[2:])
    return out.index_add_(1, group, stacked)


def _over_trainings(value: Tensor, trainings: Tensor) -> Tensor:
    """From (R, S, …), one value a training, to (R, …): the mean over the drawn trainings (R, S)."""
    count = value.shape[1]
    mean = value.nanmean(1, keepdim=True)
    if count == 1:
        return mean[:, 0]
    deviation = (value - mean) * (count / (count - 1)) ** 0.5
    index = trainings.view(*trainings.shape, *[1] * (value.ndim - 2)).expand_as(value)
    return (mean + deviation.gather(1, index)).nanmean(1)
