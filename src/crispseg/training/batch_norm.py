"""Batch norm over all ranks: mean and variance are those of the whole batch, as in one process.

On the CPU as on a GPU, where ``torch.nn.SyncBatchNorm`` knows GPUs alone. It replaces a function and no module, so
subclasses of batch norm (timm's, with an activation in them) and the names of weights stay as they are.

Not here: the rest of what ranks say to each other (``ranks``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from crispseg.training.ranks import Ranks


class OverRanks(TorchFunctionMode):
    """While it is entered, ``F.batch_norm`` in training takes its statistics over all ``ranks``.

    Each rank has to call it as often as the others, and with as many channels.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        y, mean, var, n = _BatchNorm.apply(x, weight, bias, eps, self.ranks)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (n / (n - 1))).to(running_var.dtype), momentum)
        return y


class _BatchNorm(torch.autograd.Function):
    """y = (x − μ) / √(σ² + ε) · w + b, with μ and σ² over the ranks; of the gradients of w and b this rank's part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, eps: float, ranks: Ranks) -> tuple[Tensor, ...]:
        mean, var, n = _statistics(x, ranks)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), n)
        ctx.ranks = ranks
        y = F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, var, n)
        return y, mean, var, n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, mean, scale, n = ctx.saved_tensors
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        rest = [0, *range(2, x.ndim)]
        x_hat = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        dy = dy.to(mean.dtype)
        own = torch.stack((dy.sum(rest), (dy * x_hat).sum(rest)))
        both = ctx.ranks.sum(own) / n
        dx = dy - both[0].view(shape) - x_hat * both[1].view(shape)
        dx *= (scale if weight is None else scale * weight).view(shape)
        dw = own[1].to(weight.dtype) if ctx.needs_input_grad[1] else None
        db = own[0].to(weight.dtype) if ctx.needs_input_grad[2] else None
        return dx.to(x.dtype), dw, db, None, None


def _statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) of each channel over all ranks, and how many numbers it has there (C,)."""
    rest = [0, *range(2, x.ndim)]
    own = x.numel() // x.shape[1]
    x = x if x.dtype == torch.float64 else x.float()
    var, mean = torch.var_mean(x, rest, correction=0)
    parts = torch.zeros(ranks.size, 3, len(mean), dtype=x.dtype, device=x.device)
    parts[ranks.rank] = torch.stack((mean, var, torch.full_like(mean, own)))
    means, variances, counts = ranks.sum(parts).unbind(1)  # each rank fills its own row
    n = counts.sum(0)  # a tensor: a number would have to be waited for on a GPU
    shares = counts / n
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0), n
