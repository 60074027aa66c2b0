"""``rehearse``: a few steps and validation pictures of a training, timed. Nothing is written, nothing is learned.

Not here: what is trained, and what the times are for (``crispseg.planning``).
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import default_collate

from crispseg import runs
from crispseg.config import Config
from crispseg.losses import Criterion
from crispseg.training import loop, optimisation, ranks, sources
from crispseg.training.devices import make_fabric
from crispseg.training.order import mix
from crispseg.training.validation import validate


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Seconds of a step and of a picture that is validated, on ``device``; parameters of the network."""

    step: float
    picture: float
    device: str
    threads: int
    parameters: int


def rehearse(config: Config, *, steps: int = 3, pictures: int = 2) -> Rehearsal:
    """Time ``steps`` steps, the median after a first, and ``pictures`` of the validation.

    Random weights, the first pictures of the data, read and cut in this process. Raises as
    :func:`crispseg.training.check` does, and ``RuntimeError`` if memory does not suffice.
    """
    config = ranks.config_of(config, 1)
    fabric, t = make_fabric(config), config.training
    train_set, val_set = sources.data_sets(config.data)
    torch.manual_seed(config.seed)
    model = runs.make_model(config, len(train_set.classes), pretrained=False).to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(model, optimisation.make_optimizer(model, t))
    optimisation.set_learning_rate(optimizer, 0.0)
    criterion = Criterion(
        kind=t.loss,
        ignore_index=train_set.classes.ignore_index,
        aux_weight=t.aux_weight,
        weights=cast(Any, t.losses),
    )
    times = []
    for step in range(steps + 1):
        began = time.monotonic()
        items = [train_set.get(i % len(train_set), mix(step, i)) for i in range(t.batch_size)]
        batch = default_collate(items)
        loop._step(fabric, wrapped, optimizer, criterion, batch, t.clip, t.accumulate).tolist()  # waits for a GPU
        times.append(time.monotonic() - began)
    val_set.samples = val_set.samples[:pictures]
    began = time.monotonic()
    validate(model, val_set, fabric, window=t.validate_window)
    return Rehearsal(
        step=statistics.median(times[1:]),
        picture=(time.monotonic() - began) / len(val_set),
        device=str(fabric.device),
        threads=torch.get_num_threads(),
        parameters=runs.parameter_count(model),
    )
