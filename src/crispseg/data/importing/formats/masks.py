"""Masks as pictures: in folders of their own, called ``NAME_mask.png``, or beside their pictures; whatever they hold.

Colours by a table (``tables``), indices, 0 and 255, Pascal VOC and CVAT's mask export. Masks that were saved lossily
take the nearest colour. Where the folders of pictures and masks are exchanged, they are exchanged back.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crispseg.data import layouts
from crispseg.data.classes import Colour, read_classes
from crispseg.data.images import open_picture
from crispseg.data.importing.files import Tree, read_text, same
from crispseg.data.importing.formats.tables import Table, find_table
from crispseg.data.importing.records import Entry, Labels, Source, split_of
from crispseg.data.labels import one_channel
from crispseg.errors import DataError

_IMAGES = frozenset({"images", "image", "img", "imgs", "jpegimages", "photos", "rgb", "input", "inputs", "leftimg8bit"})
_MASKS = frozenset(
    {
        "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth",
        "groundtruth", "ground_truth_mask",
        "seg",
        "segmentation", "segmentations", "segmentationclass", "segmentationclasspng", "targets", "target", "labels_png",
    }
)  # fmt: skip
_LEFT_OUT = frozenset({"segmentationobject", "segmentationclassvisualization", "visualization", "overlays"})
_WORD = r"masks?|labels?|seg|segmentation|gt|groundtruth|ground_truth|annotation|annot|L"
_AFFIX = re.compile(rf"(?P<a>.+?)[-_. ](?:{_WORD})|(?:masks?|labels?|seg|gt)[-_. ](?P<b>.+)")
_VOC_VOID = (224, 224, 192)
_LOOKED_AT = 200
_MOST_COLOURS = 64
_LOSS = 40  # how far JPEG moves black and white
Key = tuple[str, ...]


def recognise(tree: Tree) -> str | None:
    """Return what says that there are pictures with masks."""
    pairs, _ = _pairs(tree)
    return f"{len(pairs)} pictures with masks" if pairs else None


def _pairs(tree: Tree) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """Pictures with their masks, and what is left out and why.

    A mask of a picture's own name comes before one that is called ``NAME_mask``.
    """
    images: dict[Key, Path] = {}
    exact: dict[Key, Path] = {}
    called: dict[Key, Path] = {}
    beside: list[tuple[Key, Path]] = []
    left: list[tuple[Path, str]] = []
    for path in sorted(tree.pictures(), key=lambda path: not _in_masks(tree, path)):
        parents = _parents(tree, path)
        lower = {part.lower() for part in parents}
        if lower & _LEFT_OUT:
            continue
        rest = tuple(part for part in parents if part.lower() not in _IMAGES | _MASKS)
        own = same(path.stem)
        found = _AFFIX.fullmatch(own)
        stem = (found["a"] or found["b"]) if found else own
        if _in_masks(tree, path):
            if exact.setdefault((*rest, own), path) != path:
                left.append((path, f"{exact[*rest, own]} is a mask of that name too"))
            elif found:
                called.setdefault((*rest, stem), path)
        elif found and not lower & _IMAGES and (*rest, own) not in exact:  # whose mask that is, is a picture
            if called.setdefault((*rest, stem), path) != path:
                left.append((path, f"{called[*rest, stem]} is a mask of that name too"))
        else:
            key = (*rest, own)
            if key in images:
                beside.append((key, path))
            else:
                images[key] = path
    for key, path in beside:  # NAME.jpg and NAME.png in one folder
        first = images[key]
        mask, image = (path, first) if path.suffix.lower() == ".png" else (first, path)
        fits = mask.suffix.lower() == ".png" and image.suffix.lower() != ".png"
        if fits and key not in exact and key not in called:
            images[key], exact[key] = image, mask
        else:
            left.append((path, f"{first} has its name too"))
    own_masks = {exact[key] for key in images.keys() & exact.keys()}
    masks = {key: path for key, path in called.items() if path not in own_masks} | exact
    left += [(path, "no mask of its name") for key, path in images.items() if key not in masks]
    pairs = [(images[key], masks[key]) for key in images if key in masks]
    used = {mask for _, mask in pairs}
    left += [(path, "no picture of its name") for path in dict.fromkeys(masks.values()) if path not in used]
    return pairs, left


def _parents(tree: Tree, path: Path) -> tuple[str, ...]:
    return path.relative_to(tree.root).parts[:-1] if path.is_relative_to(tree.root) else ()


def _in_masks(tree: Tree, path: Path) -> bool:
    folders = [part.lower() for part in _parents(tree, path)]
    return bool(_MASKS.intersection(folders)) and folders[-1] not in _IMAGES


def read(tree: Tree, table_file: Path | None = None, names: Sequence[str] = ()) -> Source:
    """Read pictures with masks; ``names`` are those of the indices where there is no table."""
    pairs, left = _pairs(tree)
    if not pairs:
        raise DataError(f"{tree.root}: expected pictures with masks, found no pair")
    source = Source("masks", [], {}, False)
    for path, why in left:
        source.dropped.add(path, why)
    if _exchanged(pairs):
        pairs = [(mask, image) for image, mask in pairs]
        source.notes.append("the folders of pictures and of masks are exchanged; they were exchanged back")
    meaning = _meaning(tree, [mask for _, mask in pairs], find_table(tree, table_file), names, source)
    lists = _lists(tree)
    for image, mask in pairs:
        inside = image.relative_to(tree.root).parts[:-1] if image.is_relative_to(tree.root) else ()
        split = lists.get(image.stem, split_of(*inside))
        source.entries.append(Entry(image, mask=partial(_read_mask, mask, meaning), split=split))
    return source


def _lists(tree: Tree) -> dict[str, str]:
    """The split of each name that a list in ImageSets/Segmentation holds."""
    found: dict[str, str] = {}
    for path in tree.ending(".txt"):
        split = split_of(path.stem)
        if path.parent.name == "Segmentation" and split:
            found |= {Path(line.strip()).stem: split for line in read_text(path).splitlines() if line.strip()}
    return found


def _pixels(path: Path) -> tuple[npt.NDArray[np.int64], bool]:
    """Values (H, W), of a colour as R · 65536 + G · 256 + B + 2²⁴; and whether they were saved lossily."""
    with open_picture(path) as picture:
        lossy = picture.format in ("JPEG", "WEBP")
        if picture.mode in ("1", "L", "P", "F") or picture.mode.startswith("I"):
            values = one_channel(picture)
            if values.dtype.kind == "f" and not (values == np.round(values)).all():
                raise DataError(f"{path}: expected whole numbers, found fractions")
            return values.astype(np.int64), lossy
        rgb = np.array(picture.convert("RGB")).astype(np.int64)
    if (rgb[..., :1] == rgb[..., 1:]).all():
        return rgb[..., 0], lossy
    return _codes(rgb) + (1 << 24), lossy


def _colours(path: Path) -> tuple[npt.NDArray[np.int64], bool]:
    with open_picture(path) as picture:
        lossy = picture.format in ("JPEG", "WEBP")
        return _codes(np.array(picture.convert("RGB")).astype(np.int64)), lossy


def _codes(rgb: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2]


def _code(colour: Colour) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]


class _Meaning:
    """The index of each value or (``by_colour``) colour; ``near``: what is none takes the nearest."""

    def __init__(self, of: dict[int, int], *, by_colour: bool = False, near: bool = False) -> None:
        self.of, self.by_colour, self.near = of, by_colour, near


def _read_mask(path: Path, meaning: _Meaning) -> Labels:
    values, lossy = _colours(path) if meaning.by_colour else _pixels(path)
    found, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    known = np.array(sorted(meaning.of))
    unknown = [(int(n), int(v)) for v, n in zip(found, counts) if int(v) not in meaning.of]
    if unknown and not (lossy or meaning.near):
        count, value = max(unknown)
        shown = (
            f"rgb({value >> 16 & 255}, {value >> 8 & 255}, {value & 255})"
            if value > 65535 or meaning.by_colour
            else value
        )
        raise DataError(
            f"its mask {path} holds {shown} in {count} pixels, which is not a class; --table FILE names the classes"
        )
    index = [meaning.of[int(v)] if int(v) in meaning.of else meaning.of[_nearest(int(v), known)] for v in found]
    return np.array(index, np.uint8)[inverse.reshape(values.shape)]


def _nearest(value: int, known: npt.NDArray[np.int64]) -> int:
    def apart(v: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.stack([v >> 16 & 255, v >> 8 & 255, v & 255], -1)

    return int(known[((apart(known) - apart(np.array(value))) ** 2).sum(-1).argmin()])


def exchanged(root: Path) -> bool:
    """Whether a folder's images look like masks, and its labels like photos."""
    pairs, _ = _pairs(Tree(root, most=5000))
    return bool(pairs) and _exchanged(pairs)


def _exchanged(pairs: list[tuple[Path, Path]]) -> bool:
    """Whether the pictures look like masks, and the masks like photos: by the number of their colours."""
    some = pairs[:: max(1, len(pairs) // 5)][:5]
    try:
        counts = [(len(np.unique(_colours(image)[0])), len(np.unique(_colours(mask)[0]))) for image, mask in some]
    except DataError:
        return False
    return all(image <= 32 and mask > 64 and mask > 4 * image for image, mask in counts)


def _meaning(tree: Tree, masks: list[Path], table: Table | None, names: Sequence[str], source: Source) -> _Meaning:
    seen, lossy = _seen(masks[:: max(1, len(masks) // _LOOKED_AT)])
    coloured = any(value >= 1 << 24 for value in seen)
    palettes = any(_has_palette(path) for path in masks[:5])
    voc = any("segmentationclass" in (part.lower() for part in path.parts) for path in masks[:1])
    if table is None and voc and not names:
        official = read_classes(Path(layouts.__file__).with_name("voc.json"))
        if coloured or all(value < len(official) or value == 255 for value in seen):
            table = Table(dict(zip(official.names, official.palette)), dict(enumerate(official.names)))
    if table is not None:
        source.names = dict(table.colours)
        order = {name: index for index, name in enumerate(source.names)}
        if table.coloured and not table.values and not (coloured or palettes) and _are_indices(seen, table):
            source.notes.append("the masks hold indices; they were read in the order of the table, not by its colours")
            return _Meaning({255: 255} | {i: i for i in range(len(order))})
        if table.coloured and (coloured or (palettes and not table.values) or (not table.values and not names)):
            of = {_code(colour): order[name] for name, colour in table.colours.items() if colour is not None}
            return _Meaning({_code(_VOC_VOID): 255} | of, by_colour=True)
        if not coloured and table.values:
            if set(seen) == {0, 255} and len(order) > 1:
                source.notes.append(f"the masks hold 0 and 255 only; 255 was read as {list(order)[1]!r}")
                return _Meaning({0: 0, 255: 1}, near=True)
            return _Meaning({255: 255} | {value: order[name] for value, name in table.values.items()})
    if coloured:
        return _by_colours(tree, masks, source)
    ends = sum(count for value, count in seen.items() if min(value, abs(255 - value)) <= (_LOSS if lossy else 0))
    if 255 in seen and len(names) < 3 and ends >= 0.9 * seen.total() and (max(seen) == 255) and not set(seen) <= {255}:
        if set(seen) - {0, 255} and not (lossy or len(seen) > 8):
            return _indices(seen, names, source)
        if set(seen) - {0, 255}:
            share = 1 - ends / seen.total()
            source.notes.append(
                f"{share:.2%} of the masks' pixels lie between 0 and 255 (lossy or soft masks): cut at 128"
            )
        source.names = dict.fromkeys([*names, *("background", "foreground")[len(names) :]])
        return _Meaning({0: 0, 255: 1}, near=True)
    return _indices(seen, names, source)


def _are_indices(seen: Counter[int], table: Table) -> bool:
    """Whether grey masks hold no greys of the table, but numbers that count its classes."""
    greys = {colour[0] for colour in table.colours.values() if colour is not None and len(set(colour)) == 1}
    values = seen.keys() - {255}
    return bool(values - greys) and max(values, default=0) < len(table.colours)


def _indices(seen: Counter[int], names: Sequence[str], source: Source) -> _Meaning:
    most = max((value for value in seen if value != 255), default=0)
    if most > 254:
        raise DataError(f"expected masks of at most 255 classes, found the value {most}")
    source.names = dict.fromkeys([*names, *(f"class_{i}" for i in range(len(names), most + 1))])
    if not names:
        source.notes.append("the masks hold indices without names; --names gives them, in order")
    return _Meaning({255: 255} | {i: i for i in range(len(source.names))})


def _by_colours(tree: Tree, masks: list[Path], source: Source) -> _Meaning:
    found: Counter[int] = Counter()
    for path in masks:
        values, lossy = _colours(path)
        codes, counts = np.unique(values, return_counts=True)
        found.update(dict(zip(codes.tolist(), counts.tolist())))
        if lossy or len(found) > _MOST_COLOURS:
            why = "are lossy" if lossy else f"hold more than {_MOST_COLOURS} colours"
            raise DataError(f"{tree.root}: its masks {why} and no table says what colours mean; give --table FILE")
    source.notes.append(
        "no table says what the colours mean; each is a class, called by its colour (--table names them)"
    )
    order = sorted(found)
    for code in order:
        name = "background" if code == 0 else f"#{code:06x}"
        source.names[name] = (code >> 16, code >> 8 & 255, code & 255)
    return _Meaning({code: index for index, code in enumerate(order)}, by_colour=True)


def _seen(masks: Iterable[Path]) -> tuple[Counter[int], bool]:
    seen: Counter[int] = Counter()
    any_lossy = False
    for path in masks:
        try:
            values, lossy = _pixels(path)
        except DataError:
            continue
        any_lossy |= lossy
        found, counts = np.unique(values, return_counts=True)
        seen.update(dict(zip(found.tolist(), counts.tolist())))
    return seen, any_lossy


def _has_palette(path: Path) -> bool:
    try:
        with open_picture(path) as picture:
            return picture.mode == "P"
    except DataError:
        return False
