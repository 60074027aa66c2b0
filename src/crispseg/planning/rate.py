"""``rate_of``: the learning rate that a range test recommends.

Smith (WACV 2017, section 3.3) lets the rate rise and reads off where the loss falls, stops falling and rises again. The
peak of a schedule belongs below the flat bottom's middle. How far below, :data:`SHARE`, is what the tuned rates of
CamVid (4e-3) and ECSSD (1e-3) say; on other sets nothing was fitted.

Not here: the test itself (``crispseg.training.rates``).
"""

import math
from collections.abc import Sequence

from crispseg.training import Curve

SHARE = 0.4
AROUND = 5
"""Steps on either side over whose losses a mean is taken."""
FLAT = 0.05
"""Of the whole fall of the loss: so much above the least is the bottom."""


def rate_of(curve: Curve) -> float | None:
    """Return the rate for the curve of (rate, loss) of a range test, two digits; None if nothing was learned in it.

    >>> fall = [(10 ** (i / 10 - 5), 3 - i / 15 if i < 30 else 1.0) for i in range(41)]
    >>> rate_of(fall), rate_of([(10 ** (i / 10 - 5), 1.0) for i in range(41)])
    (0.013, None)
    """
    rates = [rate for rate, _ in curve]
    losses = _smooth([loss for _, loss in curve])
    if len(curve) <= 2 * AROUND:
        return None
    least = min(range(len(losses)), key=losses.__getitem__)
    fall = losses[0] - losses[least]
    if fall < FLAT * losses[0]:
        return None
    first = last = least
    while first > 0 and losses[first - 1] <= losses[least] + FLAT * fall:
        first -= 1
    while last + 1 < len(losses) and losses[last + 1] <= losses[least] + FLAT * fall:
        last += 1
    return float(f"{SHARE * math.sqrt(rates[first] * rates[last]):.2g}")


def _smooth(values: Sequence[float]) -> list[float]:
    parts = [values[max(0, i - AROUND) : i + AROUND + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]
