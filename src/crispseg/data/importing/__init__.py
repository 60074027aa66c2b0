"""``import_data``: a data set as a tool exports it, written in the project's own layout, with a report of what was
dropped.

A reader (``formats``) finds pictures, shapes and classes; ``painting`` makes label maps of shapes; here they are
split and written. Not here: the doctor, which judges what came out.
"""

import itertools
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crispseg.data.classes import ClassSet, Colour, default_palette, write_classes
from crispseg.data.images import MAX_PIXELS, exif_orientation, image_size, open_picture
from crispseg.data.importing.files import Tree
from crispseg.data.importing.formats import READERS, recognise
from crispseg.data.importing.painting import paint
from crispseg.data.importing.records import BACKGROUND, SPLITS, VOID, Entry, Labels, Source
from crispseg.data.importing.splitting import chosen
from crispseg.data.labels import write_label
from crispseg.errors import DataError, UsageError, nearest
from crispseg.files import write_json

Track = Callable[[Iterable[Any], int], Iterable[Any]]
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
_FOLDERS = frozenset({"images", "image", "img", "imgs", "jpegimages", "data", "labels", "masks"})


@dataclass(frozen=True)
class Report:
    """What was read, and what was left out and why: ``dropped`` holds (what, why)."""

    source: str
    format: str
    classes: tuple[str, ...]
    ignore_index: int
    images: dict[str, int]
    split: str
    notes: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]


def import_data(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    split: Sequence[float] | None = None,
    group: str | None = None,
    seed: int = 0,
    link: bool = False,
    names: Sequence[str] = (),
    table: str | os.PathLike[str] | None = None,
    track: Track = lambda items, total: items,
) -> Report:
    """Write the data set ``source`` into the folder ``out``: images/<split>, labels/<split>, classes.json, import.json.

    Of shapes that overlap the larger lies below (a tool's own layers come first); a pixel is a shape's if its centre
    is. What cannot be read is left out and named in the report; the whole folder is there at the end, or nothing.

    Parameters
    ----------
    source
        A folder as a tool exports it, or one annotation file in it.
    format
        One of :data:`READERS`; None: what the files look like.
    images
        A further folder to look for pictures in.
    split, group, seed
        Shares of train, val and test; names that agree in the regular expression ``group`` stay together. None: the
        source's own splits where it has train and val, else 0.8 and 0.2.
    link
        Link pictures instead of copying them.
    names
        Names of the classes in order, where the source has none.
    table
        The colours or values of the classes, for masks.

    Raises
    ------
    UsageError
        ``out`` is not empty or lies in ``source``; no such format, or none is recognised; a split that cannot be.
    DataError
        An annotation file as a whole is not what it has to be, or nothing is left to write.

    Examples
    --------
    >>> import_data("coco", "set", split=(0.8, 0.2), group="^([^_]+)")    # doctest: +SKIP
    """
    source, out = Path(source), Path(out)
    _check(source, out, split, group, names)
    root = source if source.is_dir() else source.parent.parent if source.parent.name == "annotations" else source.parent
    tree = Tree(root, None if images is None else Path(images))
    if source.is_file():
        tree.files = [path for path in tree.files if path == source or path.suffix.lower() != source.suffix.lower()]
    if format is None:
        found = recognise(tree)
        if found is None:
            raise UsageError(f"{source}: no format is recognised; give --format: {', '.join(READERS)}")
        format = found[0]
    elif format not in READERS:
        raise UsageError(f"no format {format!r}{nearest(format, READERS)}")
    reader = READERS[format]
    read = reader.read(tree, Path(table) if table else None, names) if reader.takes_table else reader.read(tree)
    if list(read.names)[: len(names)] != list(names):
        read = _renamed(read, names)
    return _write(read, root, out, split, group, seed, link, track)


def _renamed(read: Source, names: Sequence[str]) -> Source:
    """The source with its first classes called ``names``; further ones are classes that no shape has."""
    old, colours = list(read.names), list(read.names.values())
    new = [*names, *old[len(names) :]]
    if len(set(new)) < len(new):
        raise UsageError(f"--names: {next(name for name in new if new.count(name) > 1)!r} would be two classes")
    called = dict(zip(old, new))
    entries = [
        replace(entry, shapes=tuple(replace(shape, name=called[shape.name]) for shape in entry.shapes))
        for entry in read.entries
    ]
    coloured = dict(zip(new, [*colours, *[None] * (len(new) - len(old))], strict=True))
    notes = [note for note in read.notes if "--names" not in note]
    return replace(read, entries=entries, names=coloured, notes=notes)


def _check(
    source: Path, out: Path, split: Sequence[float] | None, group: str | None, names: Sequence[str] = ()
) -> None:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UsageError(f"--names: expected distinct names, found {twice[0]!r} more than once")
    if not source.exists():
        raise DataError(f"{source}: expected the folder of a data set, found nothing")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; nothing is overwritten: choose another folder")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out} lies in {source}; choose a folder beside it")
    if split is not None and (
        not 2 <= len(split) <= 3 or min(split) < 0 or split[0] <= 0 or not abs(sum(split) - 1) <= 1e-6
    ):
        shown = ",".join(f"{share:g}" for share in split)
        raise UsageError(f"--split: expected shares of train, val and perhaps test that sum to 1, found {shown}")
    if group is not None:
        try:
            re.compile(group)
        except re.error as error:
            raise UsageError(f"--group: expected a regular expression, found {group!r} ({error})") from error


def _write(
    read: Source,
    root: Path,
    out: Path,
    shares: Sequence[float] | None,
    group: str | None,
    seed: int,
    link: bool,
    track: Track,
) -> Report:
    classes, values = _classes(read)
    entries = _named(read, root)
    if not entries:
        first = f"; the first: {': '.join(read.dropped.entries[0])}" if read.dropped.entries else ""
        raise DataError(f"{root}: no picture of this {read.format} data set is left to write{first}")
    splits, words = chosen({key: entry.split for key, (_, entry) in entries.items()}, shares, group, seed)
    counts: Counter[str] = Counter()
    with _workshop(out) as folder:
        made = Path(folder, "set")
        taken: set[tuple[str, str]] = set()
        before = len(read.dropped.entries)
        for key, (short, entry) in track(entries.items(), len(entries)):
            split = splits[key]
            name = _free(lambda name, split=split: (split, name) in taken, short, key)  # type: ignore[misc]
            taken.add((split, name))
            try:
                _write_entry(made, name, entry, split, read, classes, values, link)
                counts[split] += 1
            except DataError as error:
                read.dropped.add(entry.image, str(error).replace(folder, "").removeprefix(f"{entry.image}: "))
        if not counts:
            raise DataError(f"{root}: no picture could be read; the first: {': '.join(read.dropped.entries[before])}")
        write_classes(made / "classes.json", classes)
        report = Report(
            str(root), read.format, classes.names, classes.ignore_index,
            {split: counts[split] for split in ("train", "val", "test") if counts[split]}, words, tuple(read.notes),
            tuple(read.dropped.entries),
        )  # fmt: skip
        write_json(made / "import.json", asdict(report))
        try:
            if out.exists():
                out.rmdir()
            made.rename(out)
        except OSError as error:
            raise UsageError(f"{out}: cannot be written any more ({error.strerror}); choose another folder") from error
    return report


@contextmanager
def _workshop(out: Path) -> Iterator[str]:
    """A folder beside ``out``, to make it in. OSError, naming ``out``, if it cannot be made."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".crispseg-import-", dir=out.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {out}: {error.strerror}") from error
    with folder as name:
        yield name


def _free(taken: Callable[[str], bool], *names: str) -> str:
    """The first of ``names`` that is not taken, or the last with a number."""
    numbered = (f"{names[-1]}_{i}" for i in itertools.count(2))
    return next(name for name in itertools.chain(names, numbered) if not taken(name))


def _classes(read: Source) -> tuple[ClassSet, dict[str, int]]:
    """The classes as they are written, and the value of each of the source's names."""
    void = [name for name in read.names if name.lower() in VOID]
    ground = [name for name in read.names if name.lower() in BACKGROUND]
    if void:
        read.notes.append(f"void, which counts nowhere: {', '.join(void)}")
    rest = [name for name in read.names if name not in void and name not in ground]
    names = [*(ground[:1] or (["background"] if read.ground else [])), *rest]
    if not 1 <= len(names) <= 255:
        raise DataError(f"expected 1 to 255 classes, found {len(names)}")
    spare = [colour for colour in default_palette(256) if colour not in read.names.values()]
    if len(spare) < len(names):
        spare = list(default_palette(256))
    palette: list[Colour] = []
    for i, name in enumerate(names):
        own = read.names.get(name)
        if own is None and i == 0 and (0, 0, 0) not in read.names.values():
            own = (0, 0, 0)
        palette.append(own if own is not None and own not in palette else next(c for c in spare if c not in palette))
    values = {name: names.index(name) for name in names}
    values |= dict.fromkeys(ground, 0) | dict.fromkeys(void, 255)
    return ClassSet(tuple(names), tuple(palette)), values


def _named(read: Source, root: Path) -> dict[str, tuple[str, Entry]]:
    """The entries with the names that they get: their path, without folders that only say split or pictures.

    The key is that name or, where another picture has it, a longer one.
    """
    found: dict[str, tuple[str, Entry]] = {}
    seen: set[Path] = set()
    for entry in sorted(read.entries, key=lambda entry: str(entry.image)):
        inside = entry.image.relative_to(root) if entry.image.is_relative_to(root) else Path(entry.image.name)
        parents = [part for part in inside.parts[:-1] if part.lower() not in _FOLDERS and not _says_split(part)]
        name = Path(*parents, inside.stem).as_posix()
        if entry.image in seen:
            read.dropped.add(entry.image, "it is annotated twice; the first counts")
            continue
        seen.add(entry.image)
        longer = "_".join([name, *inside.parts[:-1], inside.suffix[1:]])
        found[_free(found.__contains__, name, longer)] = name, entry
    return found


def _says_split(part: str) -> bool:
    return re.sub(r"[\d_-]+$", "", part.lower()) in SPLITS


def _write_entry(
    made: Path, name: str, entry: Entry, split: str, read: Source, classes: ClassSet, values: dict[str, int], link: bool
) -> None:
    folder = made / "images" / split / Path(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{Path(name).name}{entry.image.suffix.lower()}"
    if entry.data is not None:
        target = _write_data(entry.data, folder / Path(name).name)
    else:
        size = image_size(entry.image)
        if link:
            target.symlink_to(entry.image.resolve())
        else:
            shutil.copyfile(entry.image, target)
    try:
        size = image_size(target)
        label = _label(entry, target, size, read, values)
        write_label(made / "labels" / split / f"{name}.png", torch.from_numpy(np.ascontiguousarray(label)), classes)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _write_data(data: bytes, stem: Path) -> Path:
    path = stem.with_name(f"{stem.name}.data")
    path.write_bytes(data)
    try:
        with open_picture(path) as picture:
            suffix = _SUFFIXES[str(picture.format)]
        return path.replace(stem.with_name(f"{stem.name}{suffix}"))
    except DataError as error:
        raise DataError(f"imageData: {str(error).removeprefix(f'{path}: ')}") from error
    finally:
        path.unlink(missing_ok=True)


def _label(entry: Entry, image: Path, size: tuple[int, int], read: Source, values: dict[str, int]) -> Labels:
    """The label map, upright as the picture is read. What was drawn on the unturned photo is turned with it."""
    with open_picture(image) as picture:
        orientation = exif_orientation(picture)
    lying = orientation in (5, 6, 7, 8)
    given = entry.size
    if entry.mask is not None:
        table = np.full(256, 255, np.uint8)
        for index, name in enumerate(read.names):
            table[index] = values[name]
        label = table[entry.mask()]
        given = label.shape[0], label.shape[1]
    turned = given is not None and given != size and lying and given == size[::-1]
    at = size[::-1] if turned else size
    if given is not None and given != at:
        raise DataError(f"annotated at {given[1]}×{given[0]}, but the picture is {size[1]}×{size[0]}")
    if at[0] * at[1] > MAX_PIXELS:
        raise DataError(f"expected at most {MAX_PIXELS} pixels")
    if entry.mask is None:
        ground = 0 if read.ground else 255
        label = paint(
            entry.shapes, at, values.__getitem__, ground, lambda why: read.dropped.add(f"{entry.image}: a shape", why)
        )
    return _TURNS[orientation](label) if turned else label


_TURNS: dict[int, Callable[[Labels], Labels]] = {
    5: lambda x: x.T,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).T,
    8: lambda x: np.rot90(x, 1),
}
"""What makes each photo that lies on its side upright, as ``PIL.ImageOps.exif_transpose`` does."""
