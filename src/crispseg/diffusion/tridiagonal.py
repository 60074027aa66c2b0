"""The linear systems of the semi-implicit scheme: (I + K(w)) x = d along one axis, K the Laplacian of a chain.

    (K x)_i = w_{i−1} (x_i − x_{i−1}) + w_i (x_i − x_{i+1}),   w ≥ 0

Not here: what w is and what the solutions are averaged to (``schemes``).
"""

from typing import Any

import torch
from torch import Tensor


def solve_chain(w: Tensor, d: Tensor, dim: int) -> Tensor:
    """Solve (I + K(w)) x = d along ``dim`` by the Thomas algorithm, all lines at once.

    ``d`` (B, C, H, W), ``w`` the same with one element less along ``dim`` (channels may be 1); differentiable in both,
    any number of times. The elimination is written in positive sums only, so that nothing cancels however large w is.

    >>> import torch
    >>> x = solve_chain(torch.full((1, 1, 1, 2), 1e6), torch.tensor([[[[0.0, 3.0, 0.0]]]]), -1)
    >>> bool((x - 1).abs().max() < 1e-5)
    True
    """
    x: Tensor = _Chain.apply(w, d, dim)
    return x


class _Chain(torch.autograd.Function):
    """K is symmetric, so the gradient is one more solve with the same matrix: μ = (I + K)⁻¹ ∂x."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, d: Tensor, dim: int) -> Tensor:
        x = _thomas(w.movedim(dim, 0), d.movedim(dim, 0)).movedim(0, dim)
        ctx.save_for_backward(w, x)
        ctx.dim = dim
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        w, x = ctx.saved_tensors
        mu = solve_chain(w, grad, ctx.dim)
        grad_w = None
        if ctx.needs_input_grad[0]:
            grad_w = -(mu.diff(dim=ctx.dim) * x.diff(dim=ctx.dim)).sum_to_size(w.shape)
        return grad_w, mu, None


def _thomas(w: Tensor, d: Tensor) -> Tensor:
    """Forward elimination and back substitution along axis 0.

    The pivot m_i = r_i + w_i; the excess r starts at 1 and follows r_{i+1} = 1 + w_i r_i / m_i ≥ 1.
    """
    n = d.shape[0]
    ratio, pivot = torch.empty_like(w, memory_format=torch.contiguous_format), w.new_empty(n, *w.shape[1:])
    x = d.clone(memory_format=torch.contiguous_format)
    one = excess = torch.ones_like(pivot[0])
    ratios, pivots, xs, ws = ratio.unbind(), pivot.unbind(), x.unbind(), w.contiguous().unbind()
    for i in range(n - 1):
        torch.add(excess, ws[i], out=pivots[i])
        torch.div(ws[i], pivots[i], out=ratios[i])
        excess = torch.addcmul(one, ratios[i], excess)
        xs[i + 1].addcmul_(ratios[i], xs[i])
    pivots[n - 1].copy_(excess)
    x.div_(pivot)
    for i in range(n - 2, -1, -1):
        xs[i].addcmul_(ratios[i], xs[i + 1])
    return x
