"""What a training computes on: devices, precision and ranks through Lightning Fabric, threads; how a machine may fail.

Not here: the loop, what ranks say to each other (``ranks``).
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import nn

from crispseg import machine
from crispseg.config import Config
from crispseg.errors import CrispsegError, UsageError, in_a_line, is_memory
from crispseg.training import folder
from crispseg.training.ranks import RankError

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class _Ranks(DDPStrategy):
    """Fabric's processes, devices and precision; gradients are added up by ``crispseg.training.ranks``."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def make_fabric(config: Config, *, ranks: bool = False) -> Fabric:
    """Return a launched Fabric of one process and one device, or, with ``ranks``, of this rank of those there are.

    Raises UsageError for more devices than there are; RankError if the others do not come.
    """
    t = config.training
    more = {}
    if ranks:
        nodes = t.devices // (local := int(os.environ["LOCAL_WORLD_SIZE"]))
        if t.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.device_count() < local:
            raise UsageError(
                f"{local} devices were asked for, and this machine has {torch.cuda.device_count()} of them; take "
                f"--training.devices {torch.cuda.device_count()}, or --training.accelerator cpu"
            )
        for name in ("lightning", "lightning.fabric", "lightning.pytorch"):  # they tell that processes find each other
            logging.getLogger(name).setLevel(logging.WARNING)
        more = {"strategy": _Ranks(timeout=timedelta(seconds=t.timeout)), "num_nodes": nodes}
    try:
        fabric = Fabric(
            accelerator=t.accelerator,
            devices=local if ranks else 1,
            precision=PRECISIONS[t.precision],  # type: ignore[arg-type]
            # one process, whatever SLURM's variables say of the job
            plugins=TorchElasticEnvironment() if ranks else LightningEnvironment(),
            **more,  # type: ignore[arg-type]
        )
        fabric.launch()
    except RuntimeError as error:
        if not ranks:
            raise
        raise RankError(f"the ranks do not find each other ({in_a_line(error)})") from error
    return fabric


def check(config: Config) -> None:
    """Raise UsageError for a device or a precision that this machine does not have."""
    t = config.training
    if t.precision == "fp16" and (t.accelerator == "cpu" or not torch.cuda.is_available()):
        raise UsageError("training.precision fp16 needs a GPU (none is used here); on a CPU use bf16 or fp32")
    if t.accelerator == "mps" and not torch.backends.mps.is_available():
        raise UsageError("training.accelerator mps is Apple's GPU, and torch finds none here; take auto or cpu")


@contextlib.contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Products of float32 on a GPU in TF32, or not; a CPU has none."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what the machine did to a training into a line that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        if "Expected more than 1 value per channel" in str(error):
            raise CrispsegError(
                f"batch norm has one value to normalise ({in_a_line(error)}); take a larger data.crop, or more images "
                "at once: a larger training.batch_size, a smaller training.accumulate"
            ) from error
        if "DataLoader worker" in str(error):
            raise CrispsegError(
                f"a loader process is gone ({in_a_line(error)}); most often memory, or shared memory in a container, "
                "ran out: take fewer data.workers (0: none), a smaller data.cache, or docker --shm-size"
            ) from error
        if is_memory(error):
            raise CrispsegError(
                f"training ran out of memory ({in_a_line(error)}); take a smaller training.batch_size or data.crop"
            ) from error
        raise


@contextlib.contextmanager
def threads(resumed: Path | None) -> Iterator[None]:
    """Compute a resumed run on as many threads as before, since their number changes bits; a user's own number wins."""
    before = torch.get_num_threads()
    recorded = None if resumed is None or machine.is_users("OMP_NUM_THREADS") else folder.recorded_threads(resumed)
    torch.set_num_threads(recorded or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
