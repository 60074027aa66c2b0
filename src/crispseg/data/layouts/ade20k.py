"""ADE20K as the scene parsing benchmark has it (ADEChallengeData2016): ``images/<split>/NAME.jpg`` and
``annotations/<split>/NAME.png``, split training or validation (``train`` and ``val`` are understood).

In the files 0 is everything else and 1…150 are the classes; here 0 becomes void and the classes are 0…149.
"""

from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import Sample, by_name, pair
from crispseg.errors import DataError

_PNG = frozenset((".png",))
_OWN_NAMES = {"train": "training", "val": "validation"}
_VOID = 255
_SHIFT = (_VOID, *range(150))


def find(root: Path, split: str) -> tuple[list[Sample], ClassSet]:
    """Return the samples of ``split`` and the 150 classes."""
    split = _OWN_NAMES.get(split, split)
    image_folder, label_folder = root / "images" / split, root / "annotations" / split
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; ADE20K has images/{split} and annotations/{split} in {root}")
    pairs = pair(
        by_name(image_folder, str),
        by_name(label_folder, str, _PNG),
        f"{image_folder}/{{}}.jpg",
        f"{label_folder}/{{}}.png",
    )
    return [Sample(*files, _SHIFT) for files in pairs], read_classes(Path(__file__).with_name("ade20k.json"))
