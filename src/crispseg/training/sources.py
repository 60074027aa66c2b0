"""The data a run learns from: its two data sets, its loader, the weights of its classes.

Not here: the order of the samples (``order``), reading and transforms (``crispseg.data``).
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crispseg.config import Config, DataConfig
from crispseg.data import SegmentationDataset, find_samples, train_transform
from crispseg.data.cache import Part, make_cache
from crispseg.errors import DataError, UsageError
from crispseg.losses import class_weights
from crispseg.progress import lines
from crispseg.training.augmentation import UserTransform
from crispseg.training.order import Batches
from crispseg.training.ranks import Ranks


def data_sets(d: DataConfig) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The training split with its augmentation and the validation split without; one cache, with room for both."""
    samples, classes = find_samples(d.root, d.train_split, d.layout)
    val_samples, _ = find_samples(d.root, d.val_split, d.layout)
    transform = _transform(d, classes.ignore_index)
    train_set = SegmentationDataset(samples, classes, transform, size=d.size)
    val_set = SegmentationDataset(val_samples, classes, size=d.size)
    cache = make_cache(len(samples) + len(val_samples), int(d.cache * 2**30))
    train_set.cache, val_set.cache = Part(cache, 0), Part(cache, len(samples))
    return train_set, val_set


def _transform(d: DataConfig, void: int) -> Any:
    if d.transforms is not None:
        return UserTransform(d.transforms, d.crop, void)
    return train_transform(
        d.crop, ignore_index=void, scale=d.scale, flip=d.flip, jitter=d.jitter, max_share=d.max_share
    )


def weights_of_classes(config: Config, data: SegmentationDataset) -> Tensor | None:
    """The weight of each class (K,) in the loss, None if they are equal. UsageError for a wrong number of weights."""
    kind, k = config.training.class_weights, len(data.classes)
    if kind == "none":
        return None
    if isinstance(kind, tuple):
        if len(kind) != k:
            raise UsageError(f"training.class_weights: expected {k} numbers, one a class, found {len(kind)}")
        return torch.tensor(kind)
    indices = lines(range(len(data)), "counting the pixels of each class", len(data))
    counts = sum(torch.bincount(data.load(i)[1].flatten().long(), minlength=256) for i in indices)
    return class_weights(cast(Tensor, counts)[:k], kind)


def batches(
    data: SegmentationDataset,
    config: Config,
    *,
    start: int,
    steps: int,
    pin_memory: bool,
    ranks: Ranks = Ranks(),  # noqa: B008
) -> Iterator[dict[str, Any]]:
    """This rank's part of the batches of steps ``start`` … ``steps`` − 1, with the names of all samples of the step.

    An error in a loader process is told as if it happened here.
    """
    shape = (len(data), config.training.batch_size, steps, config.seed, start)
    order, named = Batches(*shape, rank=ranks.rank, ranks=ranks.size), Batches(*shape)
    loader: Any = DataLoader(
        data,
        batch_sampler=order,
        num_workers=config.data.workers,
        pin_memory=pin_memory,
    )
    try:
        for step, batch in enumerate(loader, start):
            if ranks.size > 1:
                batch["name"] = [data.samples[i].name for i, _ in named.whole(step)]
            yield batch
    except DataError as error:
        raise DataError(str(error).rsplit("DataError: ", 1)[-1].strip()) from error
