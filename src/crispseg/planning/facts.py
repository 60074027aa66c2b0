"""``DataFacts``: what a plan follows from, counted from what the doctor read of a data set.

Not here: reading (``crispseg.data.doctor``), what follows from the facts (``rules``).
"""

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crispseg.data import ClassSet
from crispseg.data.doctor.facts import LabelFacts, class_of
from crispseg.data.doctor.findings import SplitFacts
from crispseg.data.transforms import Size
from crispseg.errors import DataError

SAME = 0.95  # of the pictures have one size, or nearly one shape: the set has it
ALIKE = 0.1  # by how much the shapes, height / width, may differ
GROUPS = (r"^(.+)/", r"^([^_\-]+)[_\-]", r"^(.*[^\d_\-])[_\-]?\d+$")
"""What the frames of one film may have in common, by their names: a folder, a first word, all before a last number."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Of the split to learn from; ``looked_at`` of its ``images`` were read. Sizes are (height, width) in pixels.

    shares: of the labelled pixels, by class; widths: 2 · area / border, the usual width of what is of a class, in
    pixels (None where it is not seen, or has no border); together: classes in a picture, the median; void: share of
    all pixels; group: an expression by which the names to validate fall into films, and the number of these.
    """

    classes: ClassSet
    images: int
    val_images: int
    looked_at: int
    size: Size
    one_size: bool
    one_shape: bool
    shares: tuple[float, ...]
    widths: tuple[float | None, ...]
    together: float
    void: float
    group: tuple[str, int] | None

    @property
    def thinnest(self) -> tuple[str, float] | None:
        """The class of the thinnest things, and their width."""
        known = [(width, name) for width, name in zip(self.widths, self.classes.names) if width is not None]
        return (min(known)[1], min(known)[0]) if known else None


def data_facts(train: SplitFacts, classes: ClassSet, images: int, val_names: Sequence[str]) -> DataFacts:
    """Count. ``images``: how many the split has; ``val_names``: of all images to validate.

    DataError if nothing readable was seen.
    """
    sizes = [image.size for image in train.images.values() if image.error is None]
    labels = train.sound_labels()
    if not sizes or not labels:
        errors = [image.error for image in train.images.values()] + [label.error for label in train.labels.values()]
        first = next(filter(None, errors), "no file")
        raise DataError(f"nothing to plan from: {first}")
    area, border, void = _counts(labels, class_of(classes, train.mapping), classes)
    total = sum(area)
    common = statistics.mode(sizes)
    seen = sorted((h * w, (h, w)) for h, w in sizes)
    one = sizes.count(common) >= SAME * len(sizes)
    size = common if one else seen[len(seen) // 2][1]
    alike = sum(abs(h / w * size[1] / size[0] - 1) <= ALIKE for h, w in sizes)
    return DataFacts(
        classes=classes,
        images=images,
        val_images=len(val_names),
        looked_at=len(sizes),
        size=size,
        one_size=one,
        one_shape=alike >= SAME * len(sizes),
        shares=tuple(n / max(1, total) for n in area),
        widths=tuple(2 * a / b if a and b else None for a, b in zip(area, border)),
        together=statistics.median(len(_present(label, classes, train.mapping)) for label in labels),
        void=void / max(1, total + void),
        group=group_of(val_names),
    )


def group_of(names: Sequence[str]) -> tuple[str, int] | None:
    """The first of :data:`GROUPS` by which every name falls into a group, of two to a third as many as there are names.

    >>> group_of([f"{drive}_{frame:03d}" for drive in "abc" for frame in range(9)])
    ('^([^_\\\\-]+)[_\\\\-]', 3)
    >>> group_of([f"{i:04d}" for i in range(9)]) is None
    True
    """
    for pattern in GROUPS:
        found = [re.match(pattern, name) for name in names]
        if not all(found):
            continue
        groups = len({match[1] for match in found if match})
        if 2 <= groups <= len(names) / 3:
            return pattern, groups
    return None


def memory_gib() -> float:
    """Memory of the machine in GiB; 8 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 8.0


def _present(label: LabelFacts, classes: ClassSet, mapping: tuple[int, ...] | None) -> set[int]:
    meaning = class_of(classes, mapping)
    return {meaning[value] for value in label.pixels if value in meaning} - {classes.ignore_index}


def _counts(
    labels: Sequence[LabelFacts], meaning: Mapping[int, int], classes: ClassSet
) -> tuple[list[int], list[int], int]:
    """Pixels and border pixels of each class, and pixels that are void."""
    area, border, void = [0] * len(classes), [0] * len(classes), 0
    for label in labels:
        for value, count in label.pixels.items():
            index = meaning.get(value, classes.ignore_index)
            if index == classes.ignore_index:
                void += count
            else:
                area[index] += count
                border[index] += label.border.get(value, 0)
    return area, border, void
