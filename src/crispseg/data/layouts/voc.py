"""Pascal VOC: ``JPEGImages/NAME.jpg``, ``SegmentationClass/NAME.png`` and the split's names in
``ImageSets/Segmentation/<split>.txt``.

The label files are palette PNGs whose indices are the classes; 255, the border drawn round each object, is void.
"""

from pathlib import Path

from crispseg.data.classes import ClassSet, read_classes
from crispseg.data.samples import Split
from crispseg.errors import DataError
from crispseg.names import stays_inside


def classes(root: Path) -> ClassSet:
    """Return the 21 classes, background first."""
    return read_classes(Path(__file__).with_name("voc.json"))


def splits(root: Path) -> list[str]:
    """Return those of train and val that have a list of names."""
    return [split for split in ("train", "val") if _names_file(root, split).is_file()]


def files(root: Path, split: str) -> Split:
    """Return the files of ``split`` (train, val, trainval): those whose name its list holds."""
    names_file = _names_file(root, split)
    if not names_file.is_file():
        inner = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/JPEGImages"))
        where = (
            f"is {inner[0]} the root?" if inner else f"Pascal VOC has it, JPEGImages and SegmentationClass in {root}"
        )
        raise DataError(f"{names_file}: no such file; {where}")
    try:
        names = sorted(set(names_file.read_text(encoding="utf-8-sig").split()))
    except UnicodeDecodeError as error:
        raise DataError(f"{names_file}: expected the names of images in UTF-8, found {error}") from error
    for name in names:
        if not stays_inside(name) or "/" in name or "\\" in name:
            raise DataError(f"{names_file}: expected the names of images in JPEGImages, without a path, found {name!r}")
    if not names:
        raise DataError(f"{names_file}: expected the names of images, one a line, found none: the split is empty")
    patterns = f"{root}/JPEGImages/{{}}.jpg", f"{root}/SegmentationClass/{{}}.png"
    images, labels = ({name: Path(pattern.replace("{}", name)) for name in names} for pattern in patterns)
    for kind, paths in (("image", images), ("label", labels)):
        for name, path in paths.items():
            if not path.is_file():
                raise DataError(f"{path}: no such {kind}, but {names_file} lists {name!r}")
    return Split(images, labels, *patterns)


def _names_file(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"
