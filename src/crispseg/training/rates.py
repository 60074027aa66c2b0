"""``range_test``: the loss of a training whose learning rate rises step by step, until it breaks.

Smith: Cyclical learning rates for training neural networks, WACV 2017, section 3.3 (the LR range test). The rise is
exponential, as fastai's ``lr_find`` has it, since rates differ by factors.

Not here: what is made of the curve (``crispseg.planning``). Nothing is written, nothing is kept.
"""

import math
from typing import Any, cast

import torch
from torch.utils.data import default_collate

from crispseg.config import Config
from crispseg.losses import Criterion
from crispseg.training import loop, optimisation, ranks, sources
from crispseg.training.devices import make_fabric
from crispseg.training.order import mix, permutation

Curve = list[tuple[float, float]]
"""(learning rate, loss) of each step."""
BROKEN = 4.0
"""Times the smallest loss so far, after which nothing is learned any more."""


def range_test(config: Config, *, steps: int = 60, low: float = 1e-5, high: float = 0.3) -> Curve:
    """Train ``steps`` steps at rates from ``low`` to ``high``, each the same factor above the one before.

    The network, its pretrained weights, batches, augmentation and groups of parameters are those of ``config``, the
    rate is that of its decoder. It ends early where the loss is not finite, or 4 times the smallest before.
    Raises as :func:`crispseg.training.check` does.
    """
    config = ranks.config_of(config, 1)
    fabric, t = make_fabric(config), config.training
    train_set, _ = sources.data_sets(config.data)
    torch.manual_seed(config.seed)
    model = loop._network(config, train_set.classes, resumed=False).to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(model, optimisation.make_optimizer(model, t))
    weights = sources.weights_of_classes(config, train_set)
    criterion = Criterion(
        kind=t.loss,
        ignore_index=train_set.classes.ignore_index,
        class_weights=None if weights is None else fabric.to_device(weights),
        aux_weight=t.aux_weight,
        weights=cast(Any, t.losses),
    )
    order = [i for epoch in range(-(-steps * t.batch_size // len(train_set))) for i in
             permutation(config.seed, epoch, len(train_set))]  # fmt: skip
    curve: Curve = []
    for step in range(steps):
        rate = low * (high / low) ** (step / max(1, steps - 1))
        optimisation.set_learning_rate(optimizer, rate)
        first = step * t.batch_size
        places = range(first, first + t.batch_size)
        batch = default_collate([train_set.get(order[place], mix(config.seed, place)) for place in places])
        loss, norm = loop._step(fabric, wrapped, optimizer, criterion, batch, t.clip, t.accumulate).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        curve.append((rate, loss))
        if loss > BROKEN * min(seen for _, seen in curve):
            break
    return curve
