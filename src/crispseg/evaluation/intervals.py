"""How sure is a mean over trainings, or a difference of two: 95 % intervals that hold for few trainings and images.

Two things vary. The **images**: V_img, the variance of the estimate over bootstrap samples of groups of images, with
the trainings as they are. The **trainings**: of one side, B, the variance between its trainings, is that of training
itself plus I, by how much trainings differ from each other by the choice of images alone; the bootstrap gives I, and
B − I (at least 0) is what V_img does not hold yet. Over S trainings a side:

    V = V_img + max(0, B − I) · Σ 1/S

and V is known from so many degrees of freedom (Welch–Satterthwaite, where X = 2B Σ 1/S takes the place of the second
term, since a term that happens to be small would promise too many):

    ν = (V_img + X)² / (V_img² / (G − 1) + X² / (n − sides)),   estimate ± t_ν · √V

G: groups of images, of unequal size as many equal ones as weigh the same, (Σ w)² / Σ w². It is done twice: with one B
for both sides (pooled, n trainings in all: right if both are equally noisy), and with each side's own. The wider one
counts. p has two thirds of ν, and is at least 2^(1 − G), the chance of G equal signs. How often such intervals hold the
truth, and how often equal methods are told apart: ``python -m benchmarks.coverage``.

Not here: drawing samples (``bootstrap``), which metrics (``suite``), words (``verdict``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

LEVEL = 0.95
DOUBT = 2.0
"""X over B Σ 1/S."""
FAR = 2 / 3
"""The share of ν that p counts on: it is asked far out in the tail, where an estimated variance promises too much."""
ROUNDING = 1e-12
"""A difference below this is none: what is left of two equal sums."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison, by a metric: ``values`` (S, …) of its trainings, their ``replicates`` (R, S, …)."""

    values: Tensor
    replicates: Tensor


@dataclass(frozen=True)
class Noise:
    """Of one side: how many trainings; per training B, the variance between them, and I, that by images (…)."""

    trainings: int
    between: Tensor
    by_images: Tensor


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the chance p of one as far from 0, if 0 were true; NaN: too few to say (…).

    ``image_variance``: V_img, for those who pool comparisons.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    p: Tensor
    image_variance: Tensor


def effective_groups(weight: Tensor) -> Tensor:
    """Return how many equal groups weigh as much as those of ``weight`` (G, …) do: (Σ w)² / Σ w², NaN if all are 0.

    >>> effective_groups(torch.tensor([5, 5, 5])), effective_groups(torch.tensor([97, 1, 1, 1]))
    (tensor(3., dtype=torch.float64), tensor(1.0625, dtype=torch.float64))
    """
    w = weight.double()
    return w.sum(0) ** 2 / (w**2).sum(0)


def groups_of_means(weight: Tensor) -> Tensor:
    """Return how many equal groups weigh as much as those of ``weight`` (G, …, C) for a mean over the C classes.

    That of a class, in the mean over classes; but no fewer than half of what the shares of all classes together weigh,
    since many classes that are each in few groups do not make the groups few.
    """
    shares = (weight.double() / weight.double().sum(0)).nansum(-1)
    return torch.maximum(effective_groups(weight).nanmean(-1), effective_groups(shares) / 2)


def estimate(side: Side, baseline: Side | None = None, *, groups: Tensor | float) -> Estimate:
    """Return the mean of a side over its trainings, or its difference to that of ``baseline``, with its interval.

    Parameters
    ----------
    side, baseline
        Metrics in [0, 1], their replicates drawn with the same images (:func:`paired_bootstrap`).
    groups
        How many groups of images there are, by weight (:func:`effective_groups`); a number, or one for each entry (…).
        Of a single group there is no interval.

    References
    ----------
    Satterthwaite: An Approximate Distribution of Estimates of Variance Components, Biometrics 1946; Welch, Biometrika
    1947. Why chance in training belongs in: Bouthillier et al., MLSys 2021, arXiv 2103.03098.

    Examples
    --------
    >>> values = torch.tensor([0.50, 0.52], dtype=torch.float64)
    >>> found = estimate(Side(values, values.expand(100, 2)), groups=50)  # images all alike: the trainings are left
    >>> round(float(found.low), 3), round(float(found.high), 3)
    (0.383, 0.637)
    """
    sides = [side] if baseline is None else [side, baseline]
    few = torch.as_tensor(groups, dtype=torch.float64)
    # Samples of G groups vary by (G − 1) / G too little.
    correction = few / (few - 1).clamp(min=ROUNDING)
    signs = (1, -1)
    value = sum((sign * one.values.double().mean(0) for sign, one in zip(signs, sides)), torch.tensor(0.0))
    drawn = sum((sign * one.replicates.double().mean(1) for sign, one in zip(signs, sides)), torch.tensor(0.0))
    noise = [noise_of(one, few) for one in sides]
    return combine(value, correction * _variance(drawn), noise, few, lowest=0.0 if baseline is None else -1.0)


def noise_of(side: Side, groups: Tensor) -> Noise:
    """Return how a side's trainings differ, in all and by the choice of images; zeros for a single training."""
    count = side.values.shape[0]
    if count == 1:
        zero = torch.zeros_like(side.values[0], dtype=torch.float64)
        return Noise(1, zero, zero)
    own = side.replicates.double()
    apart = _variance(own - own.mean(1, keepdim=True)).sum(0) / (count - 1)
    return Noise(count, side.values.double().var(0), apart * groups / (groups - 1).clamp(min=ROUNDING))


def combine(
    value: Tensor, image_variance: Tensor, noise: Sequence[Noise], groups: Tensor, *, lowest: float = -1.0
) -> Estimate:
    """Return the interval of a value, within [``lowest``, 1], from its parts; see the head of this file."""
    several = [n for n in noise if n.trainings > 1]
    free = groups - 1
    parts: list[list[tuple[Noise, float]]] = [[]]
    if several:
        n = sum(one.trainings - 1 for one in several)
        between, apart = (
            sum((one.trainings - 1) * getattr(one, part) for one in several) / n for part in ("between", "by_images")
        )
        both = Noise(n + 1, between, apart)
        share = sum(1 / one.trainings for one in noise)
        parts = [[(both, share)]]
        # A side of one training is taken to be as noisy as the other.
        own = [(one if one.trainings > 1 else both, 1 / one.trainings) for one in noise]
        parts.append(own)
    half, p = torch.zeros_like(value), torch.zeros_like(value)
    for trainings in parts:
        excess = sum((share * (n.between - n.by_images) for n, share in trainings), torch.zeros_like(image_variance))
        deviation = (image_variance + excess.clamp(min=0.0)).sqrt()
        freedom = _freedom(image_variance, free, trainings).numpy()
        t = torch.as_tensor(special.stdtrit(freedom, 1 - (1 - LEVEL) / 2))
        half = torch.maximum(half, t * deviation)
        tail = torch.as_tensor(special.stdtr(FAR * freedom, -(value.abs() / deviation).numpy()))
        p = torch.maximum(p, 2 * tail)
    # All groups on one side of zero comes about by chance that often.
    p = torch.maximum(p, 2.0**-free).where(value.abs() > ROUNDING, 1.0)
    known = (free > ROUNDING) & ~image_variance.isnan() & ~value.isnan()
    low, high, p = (x.where(known, torch.nan) for x in (value - half, value + half, p))
    return Estimate(value, low.clamp(min=lowest), high.clamp(max=1.0), p, image_variance)


def holm(p: Tensor) -> Tensor:
    """Return p-values (N,) corrected for there being N of them, by Holm's method; NaNs stay and are not counted.

    Of all that are called at 5 %, with nothing true, a single false one comes about in at most 5 % of cases, however
    they depend on each other (Holm, Scandinavian Journal of Statistics 1979).

    >>> holm(torch.tensor([0.01, 0.04, 0.03]))
    tensor([0.0300, 0.0600, 0.0600])
    """
    out = p.clone()
    known = (~p.isnan()).nonzero().flatten()
    order = known[p[known].argsort()]
    factors = torch.arange(len(order), 0, -1, dtype=p.dtype)
    out[order] = (p[order] * factors).cummax(0).values.clamp(max=1.0) if len(order) else out[order]
    return out


def _freedom(image_variance: Tensor, free: Tensor, trainings: Sequence[tuple[Noise, float]]) -> Tensor:
    """The degrees of freedom of the variance, at least 1."""
    terms = [(DOUBT * share * n.between, n.trainings - 1) for n, share in trainings]
    taken = sum((x for x, _ in terms), torch.zeros_like(image_variance))
    spread = sum((x**2 / known for x, known in terms), image_variance**2 / free.clamp(min=1.0))
    freedom = (image_variance + taken) ** 2 / spread
    return freedom.where(spread > 0, free).clamp(min=1.0)


def _variance(replicates: Tensor) -> Tensor:
    """Over the first dimension, what could not be measured (NaN) left out; NaN of fewer than two."""
    count = (~replicates.isnan()).sum(0)
    squares = (replicates - replicates.nanmean(0)).square().nansum(0)
    return squares.where(count > 1, torch.nan) / (count - 1).clamp(min=1)
