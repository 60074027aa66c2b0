"""``SegmentationDataset``: from samples to the tensors a network trains on. Files are read and checked elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from crispseg.data.cache import Cache, make_cache
from crispseg.data.classes import ClassSet
from crispseg.data.images import exif_orientation, open_picture, read_image
from crispseg.data.labels import read_label
from crispseg.data.samples import Sample
from crispseg.data.transforms import Size, resize_image, resize_label
from crispseg.errors import DataError


class Item(TypedDict):
    """What the data set gives: image float32 (3, H, W), RGB in [0, 1]; label int64 (H, W); the sample's name."""

    image: Tensor
    label: Tensor
    name: str


class SegmentationDataset(Dataset[Item]):
    """Images with their labels, transformed together.

    ``dataset[index, seed]`` is the same item in every process, run and order, and leaves torch's generators as they
    were. ``dataset[index]`` with a transform draws its seed from torch's generator, so a plain ``DataLoader`` sees each
    image anew in every epoch, and the same again after ``torch.manual_seed`` with as many workers.

    Parameters
    ----------
    samples, classes
        As :func:`crispseg.data.find_samples` returns them. Every sample needs a label.
    transform
        A joint transform of (``tv_tensors.Image``, ``tv_tensors.Mask``), e.g. ``train_transform(...)``; None: none.
    size
        (height, width) to which image (bilinear) and label (nearest) are brought when loaded, before the transform.
    cache_bytes
        Keep loaded samples in memory, as uint8 at ``size``, until this many bytes are used; on Linux once for all
        processes that got this data set by fork or pickled, elsewhere in each.

    Raises
    ------
    DataError
        A file is bad, or image and label differ in size; the files are named.
    ValueError
        A sample has no label.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassSet,
        transform: Callable[..., Any] | None = None,
        *,
        size: Size | None = None,
        cache_bytes: int = 0,
    ) -> None:
        unlabelled = [sample.name for sample in samples if sample.label is None]
        if unlabelled:
            raise ValueError(f"every sample needs a label, but {unlabelled[0]!r} has none")
        self.samples, self.classes, self.transform, self.size = list(samples), classes, transform, size
        self.cache: Cache = make_cache(len(samples), cache_bytes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        if isinstance(index, tuple):
            return self.get(*index)
        return self.get(index, 0 if self.transform is None else int(torch.randint(2**62, ())))

    def get(self, index: int, seed: int) -> Item:
        """Return the item ``index`` with all randomness drawn from ``seed``."""
        pixels, classes = self.load(index)
        image, label = tv_tensors.Image(pixels), tv_tensors.Mask(classes)
        if self.transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would reset a GPU's as well
                image, label = self.transform(image, label)
        plain = image.as_subclass(Tensor), label.as_subclass(Tensor)
        return {"image": plain[0].float() / 255, "label": plain[1].long(), "name": self.samples[index].name}

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image uint8 (3, H, W) and label uint8 (H, W) at ``size``, untransformed. Do not write to them."""
        if (kept := self.cache.get(index)) is not None:
            return kept
        image, label = read_pair(self.samples[index], self.classes)
        if self.size is not None:
            image, label = resize_image(image, self.size), resize_label(label, self.size)
        self.cache.put(index, image, label)
        return image, label


def read_pair(sample: Sample, classes: ClassSet) -> tuple[Tensor, Tensor]:
    """Read a sample's image uint8 (3, H, W) and label uint8 (H, W). Raises ``DataError`` if their sizes differ."""
    if sample.label is None:
        raise ValueError(f"sample {sample.name!r} has no label")
    image, label = read_image(sample.image), read_label(sample.label, classes, sample.mapping)
    if image.shape[-2:] != label.shape:
        raise DataError(_sizes_differ(sample, image, label))
    return image, label


def _sizes_differ(sample: Sample, image: Tensor, label: Tensor) -> str:
    (h, w), (label_h, label_w) = image.shape[-2:], label.shape
    with open_picture(sample.image) as picture:
        orientation = exif_orientation(picture)
    turned = (
        f"; the camera turned the image (EXIF orientation {orientation}) and the label was drawn on the unturned one"
        if (h, w) == (label_w, label_h) and orientation != 1
        else ""
    )
    return f"{sample.label}: expected the size of {sample.image}, {w}×{h}, found {label_w}×{label_h}{turned}"
