"""Shards: weights, gradients, their average and the optimizer's state split over the ranks, by torch's FSDP2.

Between steps each rank holds its rows of every weight, and of all that goes with it. A forward pass brings the whole
weights together in each rank, backward adds up the gradients and leaves each rank its rows. Buffers are whole in each.
A checkpoint holds whole tensors, as of one process, so any number of ranks goes on with it, sharded or not.

The network is one unit: its blocks are not gathered one by one, since networks of users, and tied weights, say nothing
of which block is called how. So in a pass each rank holds the whole weights once beside its shards.

Not here: what ranks say to each other otherwise (``ranks``).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from crispseg.errors import UsageError


def split(module: nn.Module, device: torch.device, size: int) -> None:
    """Split the parameters of ``module``, alike in all ranks and on ``device``, over the ``size`` ranks, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for p in module.parameters():
        p.data = p.data.contiguous()  # FSDP2 takes no other layout, such as channels_last
    unit: Any = fully_shard(module, mesh=init_device_mesh(device.type, (size,)))
    unit.set_gradient_divide_factor(1.0)  # a sum: the losses of the ranks are parts of that of the batch
    unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def check(module: nn.Module) -> None:
    """Raise UsageError for what FSDP2 cannot split: a number of its own, which has no rows; parameters of two types."""
    single = [name for name, p in module.named_parameters() if p.ndim == 0]
    if single:
        raise UsageError(
            f"training.strategy fsdp splits the rows of each parameter, and {single[0]!r} of this network is a single "
            "number; make it a vector of one, or take strategy ddp"
        )
    if len(types := sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters() if p.requires_grad})) > 1:
        raise UsageError(
            f"training.strategy fsdp takes parameters of one type, and this network has {', '.join(types)}; take "
            "strategy ddp"
        )


def is_split(module: nn.Module) -> bool:
    """Whether :func:`split` has split it."""
    return hasattr(module, "unshard")


@contextmanager
def viewed(module: nn.Module) -> Iterator[None]:
    """Leave out FSDP2's warning of outputs that are views, as cut-off padding makes them: no loss writes into them."""
    if not is_split(module):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        yield


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Hold the whole weights in each rank, so that ranks may call ``module`` unequally often, without gradients."""
    if not is_split(module):
        yield
        return
    unit: Any = module
    unit.unshard()
    try:
        yield
    finally:
        unit.reshard()


def joined(x: Tensor) -> Tensor:
    """Return a shard put together, which every rank has to ask for; another tensor as it is."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def whole(tree: Any, *, keep: bool) -> Any:
    """Return ``tree`` with its shards put together, on the CPU. Each rank has to call it, also one that keeps none."""

    def of(x: Any) -> Any:
        if not hasattr(x, "full_tensor"):
            return x
        full = joined(x)
        return full.cpu() if keep else None

    return tree_map(of, tree)


def own(x: Tensor) -> Tensor:
    """Return this rank's rows of a shard, in its memory; another tensor as it is."""
    return x.to_local() if hasattr(x, "to_local") else x


def load(optimizer: Any, state: dict[str, Any]) -> None:
    """Load a whole optimizer's ``state``; of sharded parameters each rank keeps its rows."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {key: _like(parameters[key], of) for key, of in state["state"].items() if key < len(parameters)}
    optimizer.load_state_dict({**state, "state": {**state["state"], **parts}})


def _like(p: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    placed: Any = p
    if not hasattr(p, "placements"):
        return state
    from torch.distributed.tensor import distribute_tensor

    return {
        name: distribute_tensor(x.to(p.device), placed.device_mesh, placed.placements, src_data_rank=None)
        if isinstance(x, Tensor) and x.shape == p.shape
        else x
        for name, x in state.items()
    }
