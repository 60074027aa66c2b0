"""Ranks: the processes of one training on several devices, and all that they say to each other.

A step's batch is split over the ranks. What they add up is counts, sums and gradients, so that losses and gradients are
those of the whole batch, as one process has them. Nobody computes a mean of means. The gradients are added in one
order that never changes, after backward, and not by ``DistributedDataParallel``: it divides by the number of ranks,
regroups its buckets after the first step (a resumed run would then add in another order), and has to be told which
parameters get no gradient.

Of one process everything here does nothing.

Not here: batch norm over ranks (``batch_norm``), who starts the processes (``launch``, or ``torchrun``).
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from crispseg.config import Config, TrainingConfig
from crispseg.errors import CrispsegError, in_a_line
from crispseg.training.order import mix

T = TypeVar("T")
BUCKET = 2**23
"""Numbers that are added over the ranks at a time."""


class RankError(CrispsegError):
    """Another rank does not answer: its process has ended, or it is later than ``training.timeout``."""


def config_of(config: Config, size: int) -> Config:
    """Return ``config`` for so many devices; under torchrun its number counts. UsageError if the batch does not fit."""
    if config.training.devices == size:
        return config
    alone = TrainingConfig()
    own = config.training if size > 1 else alone
    return replace(config, training=replace(config.training, devices=size, strategy=own.strategy, timeout=own.timeout))


@dataclass(frozen=True)
class Ranks:
    """This process's ``rank`` of ``size``, and how the loss of a batch is shared.

    ``adds_up``: the loss of a batch is a sum over its images, so each rank computes that of its own. Otherwise each
    computes the loss of the whole batch, whose outputs are gathered, and takes the gradient of its own part.
    """

    rank: int = 0
    size: int = 1
    adds_up: bool = True

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Return the seed of this rank: dropout must not drop the same in each."""
        return mix(seed, self.rank) if self.rank else seed

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over the ranks."""
        if self.size == 1:
            return x
        total = x.clone()
        with _answered():
            dist.all_reduce(total)
        return total

    def sums(self, numbers: Mapping[Any, float], device: torch.device) -> dict[Any, float]:
        """Return the sum of each number over the ranks."""
        total = self.sum(torch.tensor([*numbers.values()], dtype=torch.float64, device=device))
        return dict(zip(numbers, total.tolist()))

    def told(self, value: T) -> T:
        """Return rank 0's ``value``."""
        if self.size == 1:
            return value
        box = [value]
        with _answered():
            dist.broadcast_object_list(box)
        return box[0]

    def together(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns here, once it is done everywhere.

        An error of one rank becomes that of all: rank 0 raises it, and the others are told that it does.
        """
        if self.size == 1:
            return work()
        error: CrispsegError | None = None
        try:
            result = work()
        except RankError:
            raise
        except CrispsegError as found:
            error = found
        errors: list[CrispsegError | None] = [None] * self.size
        with _answered():
            dist.all_gather_object(errors, error)
        for rank, other in enumerate(errors):
            if other is not None:
                raise (other if rank == 0 else named(other, rank)) if self.first else RankError(f"rank {rank} failed")
        return result

    def share(self, tensors: Any) -> None:
        """Give every rank the values that ``tensors`` have in rank 0."""
        if self.size > 1:
            with _answered():
                for x in tensors:
                    whole = x.detach().contiguous()
                    dist.broadcast(whole, 0)
                    x.detach().copy_(whole)

    def gathered(self, outputs: T) -> T:
        """Return ``outputs``, a tree of tensors (B / size, …), as those (B, …) of the whole batch, in its order.

        A gradient of the loss of the whole batch goes to this rank's own part.
        """

        def whole(x: Any) -> Any:
            return _Gather.apply(x, self.rank, self.size) if isinstance(x, Tensor) else x

        return tree_map(whole, outputs)

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients over the ranks. A parameter that got one in no rank keeps having none."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        got = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device, dtype=torch.uint8)
        with _answered():
            dist.all_reduce(got, dist.ReduceOp.MAX)
        used = [p for p, anywhere in zip(parameters, got.tolist()) if anywhere]
        for p in used:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in used if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with _answered():
                dist.all_reduce(flat)
            for gradient, total in zip(bucket, flat.split([gradient.numel() for gradient in bucket])):
                gradient.copy_(total.view_as(gradient))


@contextlib.contextmanager
def silence(rank: int) -> Iterator[None]:
    """Leave the terminal to rank 0, and put this one's name into an error of its own."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            yield
        except RankError:
            raise
        except CrispsegError as error:
            raise named(error, rank) from error


def named(error: CrispsegError, rank: int) -> CrispsegError:
    """Return ``error`` with the rank that it is of."""
    return type(error)(f"rank {rank}: {error}")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.own = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        with _answered():
            dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type, in their order, at most :data:`BUCKET` numbers together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(x.numel() for x in bucket) + gradient.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Turn what torch says of a rank that is gone or late into a line."""
    try:
        yield
    except RuntimeError as error:
        raise RankError(f"another rank is gone, or late ({in_a_line(error)})") from error
