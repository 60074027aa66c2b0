"""The explicit step with D = g(‖∇u‖), on the CPU, where no gradient is recorded: weights are used as they are made.

The same scheme as :class:`GradientDiffusivity` with :class:`Coupling`, which are the truth: the tests hold this against
them. Every temporary is written into a buffer that the run keeps, because new memory costs more than arithmetic.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from crispseg.diffusion.coupling import DOWN, RIGHT, first, second
from crispseg.diffusion.diffusivity import Diffusivity, GradientDiffusivity
from crispseg.diffusion.strips import in_strips
from crispseg.stencil import Offset

Workspace = dict[str, Tensor]
REACH = 2


def fuses(D: Diffusivity, u: Tensor) -> TypeGuard[GradientDiffusivity]:
    """Whether :class:`Fused` can stand for D here."""
    if not isinstance(D, GradientDiffusivity) or D.sigma or D.scale is None or u.device.type != "cpu":
        return False
    recorded = u.requires_grad or (isinstance(D.scale, Tensor) and D.scale.requires_grad)
    return not (recorded and torch.is_grad_enabled())


class Fused(NamedTuple):
    """L with D taken from the u that it is applied to."""

    D: GradientDiffusivity
    buffers: Workspace
    bound: float = 1 / 4

    def __call__(self, u: Tensor) -> Tensor:
        """Return L u."""
        return self.stepped(u, 1.0) - u

    @torch.no_grad()
    def stepped(self, u: Tensor, step: float) -> Tensor:
        """Return u + τ L u."""

        def part(top: int, bottom: int) -> Tensor:
            rows = u[..., top:bottom, :]
            change = self._change(rows)
            return torch.add(rows, change, alpha=step, out=change)

        return in_strips(u, REACH, part)

    def _change(self, u: Tensor) -> Tensor:
        """L u in one piece, summed in the order of :class:`Coupling`; a buffer, good until the next call."""
        *outer, height, width = u.shape
        down, right = (
            self._buffer("down", u, (*outer, height + 1, width)),
            self._buffer("right", u, (*outer, height, width + 1)),
        )
        for rim in (down[..., 0, :], down[..., -1, :], right[..., 0], right[..., -1]):
            rim.zero_()
        for e, flow in ((DOWN, down[..., 1:-1, :]), (RIGHT, right[..., 1:-1])):
            difference = torch.sub(second(u, e), first(u, e), out=self._buffer("difference", u, flow.shape))
            torch.mul(difference, self._weight(u, difference, e), out=flow)
        y = torch.add(down[..., :-1, :], right[..., :-1], out=self._buffer("difference", u, u.shape))
        torch.sub(right[..., 1:], y, out=y)
        return y.add_(down[..., 1:, :])

    def _weight(self, u: Tensor, difference: Tensor, e: Offset) -> Tensor:
        """g(‖∇u‖² / λ²) at the half-points of ``e``."""
        squared = torch.mul(difference, difference, out=self._buffer("squared", u, difference.shape))
        if self.D.gradient == "norm":
            central = self._doubled_central(u, RIGHT if e == DOWN else DOWN)
            across = self._buffer("across", u, difference.shape)
            torch.add(first(central, e), second(central, e), out=across).mul_(1 / 4)
            squared.addcmul_(across, across)
        if u.shape[1] > 1:
            shape = (squared.shape[0], 1, *squared.shape[2:])
            squared = torch.sum(squared, 1, keepdim=True, out=self._buffer("summed", u, shape))
        assert self.D.scale is not None
        return self.D.g(squared, self.D.scale**2, out=squared)

    def _doubled_central(self, u: Tensor, e: Offset) -> Tensor:
        """u_{p+e} − u_{p−e}, the border repeated."""
        dim = -2 if e == DOWN else -1
        last = u.shape[dim] - 1
        out = self._buffer("central", u, u.shape)
        for at, ahead, behind in ((0, min(1, last), 0), (last, last, max(last - 1, 0))):
            torch.sub(u.select(dim, ahead), u.select(dim, behind), out=out.select(dim, at))
        if last > 1:
            inner = out.narrow(dim, 1, last - 1)
            torch.sub(u.narrow(dim, 2, last - 1), u.narrow(dim, 0, last - 1), out=inner)
        return out

    def _buffer(self, name: str, u: Tensor, shape: Sequence[int]) -> Tensor:
        """Scratch memory of that name, cut to ``shape``; what it held is lost."""
        size = math.prod(shape)
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = u.new_empty(size)
        return self.buffers[name][:size].view(shape)
