"""Pascal VOC: ``JPEGImages/NAME.jpg``, ``SegmentationClass/NAME.png`` and the split's names in
``ImageSets/Segmentation/<split>.txt``.

The label files are palette PNGs whose indices are the classes; 255, the border drawn round each object, is void.
"""

from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import Sample
from crispseg.errors import DataError


def find(root: Path, split: str) -> tuple[list[Sample], ClassSet]:
    """Return the samples of ``split`` (train, val, trainval) and the 21 classes."""
    names_file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not names_file.is_file():
        inner = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/JPEGImages"))
        where = (
            f"; is {inner[0]} the root?"
            if inner
            else f"; Pascal VOC has it, JPEGImages and SegmentationClass in {root}"
        )
        raise DataError(f"{names_file}: no such file{where}")
    names = names_file.read_text(encoding="utf-8").split()
    if not names:
        raise DataError(f"{names_file}: expected the names of images, one a line, found none: the split is empty")
    return [_sample(root, name, names_file) for name in sorted(set(names))], read_classes(
        Path(__file__).with_name("voc.json")
    )


def _sample(root: Path, name: str, names_file: Path) -> Sample:
    image, label = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
    for path, kind in ((image, "image"), (label, "label")):
        if not path.is_file():
            raise DataError(f"{path}: no such {kind}, but {names_file} lists {name!r}")
    return Sample(name, image, label)
