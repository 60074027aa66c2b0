"""The explicit step with D = g(‖∇u‖), on the CPU, where no gradient is recorded: weights are used as they are made.

The same scheme as :class:`GradientDiffusivity` with :class:`Coupling`, which are the truth: the tests hold this against
them. Every temporary is written into a buffer that the run keeps, because new memory costs more than arithmetic.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crispseg.diffusion.coupling import DOWN, RIGHT, first, second
from crispseg.diffusion.diffusivity import Diffusivity, GradientDiffusivity
from crispseg.diffusion.strips import in_strips, pays
from crispseg.stencil import Offset

Workspace = dict[tuple[str, tuple[int, ...]], Tensor]
REACH = 2


def fuses(D: Diffusivity, u: Tensor) -> bool:
    """Whether :class:`Fused` can stand for D here."""
    if not isinstance(D, GradientDiffusivity) or D.sigma or D.scale is None or u.device.type != "cpu":
        return False
    recorded = u.requires_grad or (isinstance(D.scale, Tensor) and D.scale.requires_grad)
    return not (recorded and torch.is_grad_enabled())


class Fused(NamedTuple):
    """L u with D taken from u itself; the result is a buffer, good until the next call."""

    D: Diffusivity
    buffers: Workspace

    @property
    def bound(self) -> float:
        return 1 / 4

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Tensor:
        if not pays(u):
            return self.rows(u)
        out = self._buffer("whole", u, u.shape)
        return in_strips(u, REACH, lambda top, bottom: self.rows(u[..., top:bottom, :]), out)

    def rows(self, u: Tensor) -> Tensor:
        """L u in one piece, summed in the order of :class:`Coupling`."""
        batch, channels, height, width = u.shape
        down = self._buffer("down", u, (batch, channels, height + 1, width))
        right = self._buffer("right", u, (batch, channels, height, width + 1))
        for e, flow in ((DOWN, down[..., 1:-1, :]), (RIGHT, right[..., 1:-1])):
            step = torch.sub(second(u, e), first(u, e), out=self._buffer(f"step {e}", u, flow.shape))
            torch.mul(step, self._weight(u, step, e), out=flow)
        y = torch.add(down[..., :-1, :], right[..., :-1], out=self._buffer("result", u, u.shape))
        torch.sub(right[..., 1:], y, out=y)
        return y.add_(down[..., 1:, :])

    def _weight(self, u: Tensor, step: Tensor, e: Offset) -> Tensor:
        """g(‖∇u‖² / λ²) at the half-points of ``e``."""
        assert isinstance(self.D, GradientDiffusivity) and self.D.scale is not None
        squared = torch.mul(step, step, out=self._buffer(f"squared {e}", u, step.shape))
        if self.D.gradient == "norm":
            central = self._doubled_central(u, RIGHT if e == DOWN else DOWN)
            across = self._buffer(f"across {e}", u, step.shape)
            torch.add(first(central, e), second(central, e), out=across).mul_(1 / 4)
            squared.addcmul_(across, across)
        if u.shape[1] > 1:
            shape = (squared.shape[0], 1, *squared.shape[2:])
            squared = torch.sum(squared, 1, keepdim=True, out=self._buffer(f"summed {e}", u, shape))
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

    def _buffer(self, name: str, u: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The buffer of that name and shape; new ones are zero, and the rims of the flows are never written again."""
        key = name, tuple(shape)
        if key not in self.buffers:
            self.buffers[key] = u.new_zeros(shape)
        return self.buffers[key]
