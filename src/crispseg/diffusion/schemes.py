"""One step in time, three ways: explicit Euler, additive operator splitting (AOS), a fast explicit (FED) cycle.

Not here: how many steps, and what happens between them (``solve``).
"""

import math

import torch
from torch import Tensor

from crispseg.diffusion.coupling import DOWN, RIGHT, Coupling, Operator
from crispseg.diffusion.fused import Fused
from crispseg.diffusion.tridiagonal import solve_chain


def explicit_step(u: Tensor, L: Operator, step: float) -> Tensor:
    """u + τ L u, stable for τ ≤ ``L.bound``."""
    return L.stepped(u, step) if isinstance(L, Fused) else torch.add(u, L(u), alpha=step)


def aos_step(u: Tensor, L: Operator, step: float) -> Tensor:
    """½ Σ_axes (I − 2τ L_axis)⁻¹ u: stable, with maximum principle, for every τ; first order in τ.

    Source: Weickert, ter Haar Romeny and Viergever 1998, section V. Raises ``ValueError`` for a tensor, whose diagonal
    pairs belong to neither axis.
    """
    if not isinstance(L, Coupling) or tuple(L.offsets) != (DOWN, RIGHT):
        raise ValueError("aos splits along the axes and needs a scalar diffusivity; tensors take 'fed' or 'explicit'")
    height, width = u.shape[-2:]
    solutions = []
    for w, dim, pairs in zip(L.weights, (-2, -1), ((height - 1, width), (height, width - 1)), strict=True):
        shape = (*w.shape[:-2], *pairs) if w.ndim == 4 else (1, 1, *pairs)
        solutions.append(solve_chain((2 * step * w).expand(shape), u, dim))
    return (solutions[0] + solutions[1]) / 2


def fed_cycle(u: Tensor, L: Operator, length: float) -> Tensor:
    """One FED cycle: n explicit steps of different sizes, some far past the bound, stable as a whole.

    n grows with the square root of ``length``; explicit steps at the bound grow with ``length`` itself. L stays fixed.
    """
    for step in fed_steps(length, L.bound):
        u = explicit_step(u, L, step)
    return u


def fed_steps(length: float, bound: float) -> list[float]:
    """The step sizes of a cycle, their sum ``length``, in an order that keeps rounding errors small.

        τ_i = q · bound / (2 cos²(π (2i + 1) / (4n + 2))),   n smallest with bound (n² + n) / 3 ≥ length

    q ≤ 1 scales the cycle to its length. Source: Grewenig, Weickert and Bruhn 2010, section 3.

    >>> steps = fed_steps(10.0, 0.25)
    >>> len(steps), round(sum(steps), 9)
    (11, 10.0)
    """
    if length <= bound:
        return [length]
    n = math.ceil(math.sqrt(0.25 + 3 * length / bound) - 0.5)
    scale = 3 * length / (n * n + n)
    return _leja([scale / (2 * math.cos(math.pi * (2 * i + 1) / (4 * n + 2)) ** 2) for i in range(n)])


def _leja(steps: list[float]) -> list[float]:
    """Order by Leja: the next root 1/τ is the one that the product of distances to those before it makes farthest.

    In any other order partial products of (1 − τ_i z) grow past the accuracy of the numbers before they fall.
    """
    left = sorted(1 / step for step in steps)
    ordered = [left.pop()]
    gains = [math.log(ordered[0] - root) if root < ordered[0] else -math.inf for root in left]
    while left:
        best = max(range(len(left)), key=gains.__getitem__)
        root = left.pop(best)
        gains.pop(best)
        gains = [gain + math.log(abs(root - other)) for gain, other in zip(gains, left, strict=True)]
        ordered.append(root)
    return [1 / root for root in ordered]
