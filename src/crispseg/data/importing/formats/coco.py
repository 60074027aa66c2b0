"""COCO: instances as polygons and run lengths, and the panoptic PNGs, as categories. Also Roboflow's
``_annotations.coco.json``.

The parts of one instance are united, as pycocotools does. Crowds are painted as their category. A category that only
heads others (Roboflow's first) and has no annotation is left out.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crispseg.data.images import MAX_PIXELS, open_picture
from crispseg.data.importing import painting
from crispseg.data.importing.files import Tree, both_ends, number, read_json, ring
from crispseg.data.importing.painting import BadShapeError, Draw, Patch, Shape
from crispseg.data.importing.records import Dropped, Entry, Labels, Source, split_of
from crispseg.errors import DataError, require

_LOOKED_INTO = 2**20
"""Bytes up to which a file is read to see what it is; of a larger one its two ends say it."""
_OTHERS = ("captions_", "person_keypoints_", "image_info_")


def recognise(tree: Tree) -> str | None:
    """Return the file that says it is COCO."""
    found = _files(tree, panoptic=False)
    return str(found[0].relative_to(tree.root)) if found else None


def recognise_panoptic(tree: Tree) -> str | None:
    """Return the file that says it is COCO panoptic."""
    found = _files(tree, panoptic=True)
    return str(found[0].relative_to(tree.root)) if found else None


def _files(tree: Tree, *, panoptic: bool) -> list[Path]:
    found = []
    for path in tree.ending(".json"):
        head, tail = both_ends(path)
        ends = head + tail
        words = (b'"images"', b'"annotations"', b'"categories"')
        if path.name.startswith(_OTHERS) or b'"shapes"' in head or not any(word in ends for word in words):
            continue
        if path.stat().st_size <= _LOOKED_INTO and not _may_be(path):
            continue
        if (path.name.startswith("panoptic") or b'"segments_info"' in ends) == panoptic:
            found.append(path)
    return found


def _may_be(path: Path) -> bool:
    """Whether a small file has what COCO has; one that is damaged may have been COCO, and is told when it is read."""
    try:
        content = read_json(path)
    except DataError:
        return True
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "categories"))


def read(tree: Tree) -> Source:
    """Read every file of instances below the source."""
    return _read(tree, _files(tree, panoptic=False), _instances, ground=True)


def read_panoptic(tree: Tree) -> Source:
    """Read every panoptic file below the source."""
    return _read(tree, _files(tree, panoptic=True), _segments, ground=False)


def _read(tree: Tree, files: list[Path], entries: Callable[..., Any], *, ground: bool) -> Source:
    contents = []
    for path in files:
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            contents.append((path, content))
    dropped = Dropped()
    tables = [_categories(path, content, dropped) for path, content in contents]
    if not any(tables):
        raise DataError(f"{files[0] if files else tree.root}: expected COCO with categories, found none")
    everything = sorted((entry for table in tables for entry in table.items()), key=lambda entry: entry[0])
    unused = _heads(contents, tables, everything) if ground else []
    for name in unused:
        dropped.add(f"category {name!r}", "it only heads other categories and has no annotation")
    meanings = [
        {key: name for key, category in table.items() if (name := _name(category)) not in unused} for table in tables
    ]
    names: dict[str, Any] = {}
    for _, category in everything:
        if _name(category) not in unused:
            names.setdefault(_name(category), _colour(category.get("color")))
    source = Source("coco" if ground else "coco_panoptic", [], names, ground, dropped)
    twice = max(len(meaning) - len(set(meaning.values())) for meaning in meanings)
    if twice:
        source.notes.append(f"{twice} categories have the name of another and became one class with it")
    pairs = {(key, name) for meaning in meanings for key, name in meaning.items()}
    if len(pairs) > len({key for key, _ in pairs}):
        source.notes.append("the files number their categories differently; each was read by its own numbers")
    for (path, content), meaning in zip(contents, meanings, strict=True):
        source.entries += entries(tree, path, content, meaning, dropped, source)
    return source


def _categories(path: Path, content: dict[str, Any], dropped: Dropped) -> dict[int, dict[str, Any]]:
    """The categories of one file by their id: another file may number its own differently."""
    found: dict[int, dict[str, Any]] = {}
    for category in _dicts(content, "categories", path, dropped):
        if not isinstance(category.get("name"), str) or not isinstance(category.get("id"), int):
            dropped.add(f"{path}: category {category.get('id')}", "it has no id or no name")
        elif category["id"] in found:
            dropped.add(
                f"{path}: category {_name(category)!r}", f"another has the id {category['id']}; the first counts"
            )
        else:
            found[category["id"]] = category
    return found


def _name(category: dict[str, Any]) -> str:
    return str(category["name"]).strip()


def _heads(
    contents: list[tuple[Path, dict[str, Any]]],
    tables: list[dict[int, dict[str, Any]]],
    everything: list[tuple[int, dict[str, Any]]],
) -> list[str]:
    """The categories that only head others, as Roboflow's first, and that no annotation has."""
    used = set()
    for (_, content), table in zip(contents, tables, strict=True):
        used |= {_name(table[key]) for a in _annotations(content) if (key := _key(a.get("category_id"))) in table}
    heads = {str(category.get("supercategory")).strip() for _, category in everything}
    own = {_name(category) for _, category in everything if category["name"] == category.get("supercategory")}
    return list(dict.fromkeys(name for _, c in everything if (name := _name(c)) in heads and name not in used | own))


def _key(value: Any) -> Any:
    """An id; None if it is none."""
    return value if isinstance(value, int | str) else None


def _annotations(content: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    entries = content.get("annotations")
    for annotation in entries if isinstance(entries, list) else []:
        if isinstance(annotation, dict):
            parts = annotation.get("segments_info")
            found += [part for part in (parts if isinstance(parts, list) else [annotation]) if isinstance(part, dict)]
    return found


def _dicts(content: dict[str, Any], key: str, path: Path, dropped: Dropped) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        return []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            dropped.add(f"{path}: {key} {i}", "expected an object")
    return [entry for entry in entries if isinstance(entry, dict)]


def _pictures(tree: Tree, path: Path, content: dict[str, Any], dropped: Dropped) -> dict[Any, tuple[Path, Any]]:
    """File and size of every picture, by its id. Pictures that share an id are left out: whose are its annotations?"""
    found: dict[Any, tuple[Path, Any]] = {}
    called: dict[Any, set[str]] = defaultdict(set)
    for image in _dicts(content, "images", path, Dropped()):
        called[_key(image.get("id"))].add(str(image.get("file_name")))
    prefer = {*path.stem.split("_"), *path.parts[-2:-1]}
    for image in _dicts(content, "images", path, dropped):
        name, key = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not isinstance(key, int | str):
            dropped.add(f"{path}: image {key}", "it has no id or no file_name")
            continue
        if len(called[key]) > 1:
            why = f"{len(called[key])} pictures have the id {key}; whose its annotations are is not known"
            dropped.add(f"{path}: {name}", why)
            continue
        file = tree.find(name, path.parent, prefer, avoid=[path.stem, path.stem.replace("instances", "panoptic")])
        if isinstance(file, str):
            dropped.add(f"{path}: image {key}", file)
            continue
        height, width = image.get("height"), image.get("width")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        found[key] = (file, size)
    return found


def _split(tree: Tree, json: Path, image: Path) -> str | None:
    inside = image.relative_to(tree.root).parts[:-1] if image.is_relative_to(tree.root) else ()
    return split_of(json.stem, *json.relative_to(tree.root).parts[:-1], *inside)


def _instances(
    tree: Tree, path: Path, content: dict[str, Any], named: dict[int, str], dropped: Dropped, source: Source
) -> list[Entry]:
    pictures = _pictures(tree, path, content, dropped)
    known = {_key(image.get("id")) for image in content["images"] if isinstance(image, dict)}
    shapes: dict[Any, list[Shape]] = defaultdict(list)
    crowds = 0
    for annotation in _dicts(content, "annotations", path, dropped):
        what = f"{path}: annotation {annotation.get('id')}"
        image, category = _key(annotation.get("image_id")), _key(annotation.get("category_id"))
        if image not in pictures:
            if image not in known:
                dropped.add(what, f"it is of image {image}, which is not there")
        elif category not in named:
            dropped.add(what, f"category {category} is not there")
        else:
            try:
                shapes[image].append(Shape(named[category], segmentation(annotation.get("segmentation"))))
                crowds += bool(annotation.get("iscrowd"))
            except BadShapeError as error:
                dropped.add(what, error)
    if crowds:
        source.notes.append(f"{path.name}: {crowds} crowds are painted as their category")
    return [
        Entry(file, tuple(shapes[key]), split=_split(tree, path, file), size=size)
        for key, (file, size) in pictures.items()
    ]


def segmentation(value: Any) -> Draw:
    """Return what draws a COCO segmentation: [[x, y, …], …], {"size", "counts": "…" or […]}."""
    if isinstance(value, dict):
        size = value.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
            raise BadShapeError("expected run lengths with a size [height, width]")
        if size[0] * size[1] > MAX_PIXELS:
            raise BadShapeError(f"expected at most {MAX_PIXELS} pixels, found {size[0]}×{size[1]}")
        return partial(_runs, value.get("counts"), (size[0], size[1]))
    if not isinstance(value, list) or not value:
        raise BadShapeError("it has a box and no segmentation" if value in (None, []) else "expected polygons")
    rings = value if isinstance(value[0], list) else [value]
    return painting.polygon([[_pairs(part)] for part in rings])


def _pairs(flat: Any) -> Any:
    if isinstance(flat, list) and flat and isinstance(flat[0], list):
        return ring(flat)
    if not isinstance(flat, list) or len(flat) % 2 or len(flat) < 6:
        raise BadShapeError("expected a polygon x, y, … of at least 3 points")
    return ring([[number(x), number(y)] for x, y in zip(flat[::2], flat[1::2])])


def _runs(counts: Any, size: tuple[int, int], height: int, width: int) -> Patch:
    if size != (height, width):
        raise BadShapeError(f"expected run lengths of {width}×{height}, found {size[1]}×{size[0]}")
    if isinstance(counts, list):
        return Patch(0, 0, painting.counted(counts, size, "F"))
    if not isinstance(counts, str):
        raise BadShapeError("expected counts, a string or a list")
    try:
        bits = _pycocotools().decode({"size": list(size), "counts": counts.encode("ascii")})
    except (ValueError, UnicodeEncodeError, MemoryError) as error:
        raise BadShapeError(f"expected run lengths as COCO packs them ({error})") from None
    return Patch(0, 0, bits.astype(bool))


def _pycocotools() -> Any:
    require("import", "pycocotools", purpose="reading packed run lengths")
    from pycocotools import mask

    return mask


def _segments(
    tree: Tree, path: Path, content: dict[str, Any], named: dict[int, str], dropped: Dropped, source: Source
) -> list[Entry]:
    pictures = _pictures(tree, path, content, dropped)
    order = {name: index for index, name in enumerate(source.names)}
    entries = []
    for annotation in _dicts(content, "annotations", path, dropped):
        key = _key(annotation.get("image_id"))
        if key not in pictures:
            dropped.add(f"{path}: annotation of image {key}", "the image is not there")
            continue
        mask = tree.find(str(annotation.get("file_name")), path.parent, [path.stem, path.stem.removesuffix(".json")])
        if isinstance(mask, str):
            dropped.add(f"{path}: annotation of image {key}", mask)
            continue
        meaning = {}
        segments = annotation.get("segments_info")
        for segment in segments if isinstance(segments, list) else []:
            if isinstance(segment, dict) and _key(segment.get("category_id")) in named:
                meaning[_key(segment.get("id"))] = order[named[segment["category_id"]]]
            else:
                dropped.add(f"{path}: a segment of image {key}", "its category is not there")
        file, size = pictures[key]
        entries.append(Entry(file, mask=partial(_panoptic, mask, meaning), split=_split(tree, path, file), size=size))
    return entries


def _panoptic(path: Path, meaning: dict[Any, int]) -> Labels:
    """Ids are R + 256 G + 65536 B; what no segment names is void."""
    with open_picture(path) as picture:
        rgb = np.array(picture.convert("RGB")).astype(np.int64)
    ids, inverse = np.unique(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], return_inverse=True)
    return np.array([meaning.get(int(i), 255) for i in ids], np.uint8)[inverse.reshape(rgb.shape[:2])]


def _colour(value: Any) -> tuple[int, int, int] | None:
    good = isinstance(value, list) and len(value) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in value)
    return (value[0], value[1], value[2]) if good else None
