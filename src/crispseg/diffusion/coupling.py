"""The diffusion operator div(D ∇u) as weighted differences between pixel pairs, and how large a step it bears.

    (L u)_p = Σ_q w_pq (u_q − u_p),   w_pq = w_qp

Symmetric weights conserve the mass exactly; non-negative ones give the maximum principle. A pair that would leave the
map does not exist, which is the border rule of :mod:`crispseg.stencil` written for pairs: no flow across the border.

Not here: where the weights come from.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from crispseg.diffusion.strips import in_strips, pays
from crispseg.stencil import Offset

DOWN, RIGHT = (1, 0), (0, 1)


class Operator(Protocol):
    """L = div(D ∇·) on a grid: a linear, symmetric, negative semi-definite map of (B, C, H, W)."""

    def __call__(self, u: Tensor) -> Tensor:
        """Return L u, the shape of ``u``."""
        ...

    @property
    def bound(self) -> float:
        """The largest τ for which u + τ L u is stable."""
        ...


class Coupling(NamedTuple):
    """L from pair weights: ``weights[i]`` couples every pixel p to p + ``offsets[i]``; each pair is listed once.

    ``weights[i]`` broadcasts against the pairs of (B, C, H, W); ``bound`` is 1 / max_p Σ_q w_pq when all w ≥ 0.
    """

    offsets: Sequence[Offset]
    weights: Sequence[Tensor]
    bound: float

    def __call__(self, u: Tensor) -> Tensor:
        """Return L u."""
        if not pays(u, self.weights):
            return self.whole(u)
        return in_strips(u, 1, lambda top, bottom: self.rows(top, bottom).whole(u[..., top:bottom, :]))

    def rows(self, top: int, bottom: int) -> "Coupling":
        """The same weights for the map cut to rows top … bottom − 1."""
        weights = [w if w.ndim == 0 else w[..., top : bottom - e[0], :] for e, w in zip(self.offsets, self.weights)]
        return Coupling(self.offsets, weights, self.bound)

    def whole(self, u: Tensor) -> Tensor:
        """L u in one piece; summed in the row-major order of the stencil, so that the rounding is that of ``ops``."""
        flows = [w * (second(u, e) - first(u, e)) for e, w in zip(self.offsets, self.weights, strict=True)]
        y = torch.zeros_like(u)
        for e, flow in zip(self.offsets, flows, strict=True):
            second(y, e).sub_(flow)
        for e, flow in zip(reversed(self.offsets), reversed(flows), strict=True):
            first(y, e).add_(flow)
        return y


def first(x: Tensor, offset: Offset) -> Tensor:
    """The view of every p whose partner p + ``offset`` lies on the map; ``offset`` points down, or right in its row."""
    dy, dx = offset
    height, width = x.shape[-2:]
    return x[..., : max(height - dy, 0), max(-dx, 0) : max(width - max(dx, 0), 0)]


def second(x: Tensor, offset: Offset) -> Tensor:
    """The view of every partner p + ``offset``, in the order of :func:`first`."""
    dy, dx = offset
    width = x.shape[-1]
    return x[..., dy:, max(dx, 0) : max(width - max(-dx, 0), 0)]


def between(x: Tensor, offset: Offset) -> Tensor:
    """The mean of x at both ends of every pair: a pixel quantity brought to the half-point."""
    return (first(x, offset) + second(x, offset)) / 2


@torch.no_grad()
def gershgorin_bound(offsets: Sequence[Offset], weights: Sequence[Tensor], like: Tensor) -> float:
    """2 / max_p (|Σ_q w_pq| + Σ_q |w_pq|): by Gershgorin's discs no eigenvalue of −L is larger than 2 / this.

    With w ≥ 0 it is 1 / max_p Σ_q w_pq, the bound of the maximum principle. ``like`` is u, for its shape.
    """
    total, absolute = torch.zeros_like(like), torch.zeros_like(like)
    for e, w in zip(offsets, weights, strict=True):
        for end in (first, second):
            end(total, e).add_(w)
            end(absolute, e).add_(w.abs())
    disc = float((total.abs() + absolute).max()) if like.numel() else 0.0
    return 2 / disc if disc > 0 else float("inf")
