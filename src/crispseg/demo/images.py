"""The demo's images: generated scenes, or a share of a user's data set, in ``out/data`` in the folder format.

Not here: reading them.
"""

import os
from pathlib import Path

from crispseg.data import Sample, find_samples, image_size, write_classes
from crispseg.data.scenes import write_scenes
from crispseg.errors import DataError

LARGEST = 192 * 1024
"""Pixels above which a user's images are trained on reduced; the evaluation stays at their own size."""


def gather(
    data: Path, root: Path | None, *, counts: dict[str, int], seed: int, size: tuple[int, int]
) -> tuple[str, tuple[int, int] | None]:
    """Fill ``data`` with at most ``counts[split]`` images a split.

    Returns the split to evaluate on, ``"test"`` or, where a user's data set has none, ``"val"``; and the size to which
    images are brought for training, None for their own.
    """
    if root is None:
        write_scenes(data, counts, seed=seed, height=size[0], width=size[1])
        return "test", None
    has_test = (root / "images" / "test").is_dir()
    for split in ("train", "val", "test") if has_test else ("train", "val"):
        samples, classes = find_samples(root, split)
        write_classes(data / "classes.json", classes)  # first of all: by it the next demo knows this folder
        for sample in _spread(samples, counts["test" if split == "val" and not has_test else split]):
            _link(sample, data, split)
    height, width = image_size(samples[0].image)
    shrink = (LARGEST / (height * width)) ** 0.5
    reduced = None if shrink >= 1 else (round(height * shrink), round(width * shrink))
    return "test" if has_test else "val", reduced


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """``count`` samples evenly spread over the list, or all."""
    if len(samples) <= count:
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def _link(sample: Sample, data: Path, split: str) -> None:
    for kind, path in (("images", sample.image), ("labels", sample.label)):
        if path is None:
            raise DataError(f"{sample.image}: an image without label")
        target = data / kind / split / f"{sample.name}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), target)
