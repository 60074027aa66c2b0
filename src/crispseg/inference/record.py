"""``predictions.json``: which files of a folder predictions wrote, who wrote each, and of which picture it is.

By it a prediction knows what it may replace. Not here: writing masks (``masks``).
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from crispseg.data import ClassSet, read_classes, write_classes
from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.files import sweep, write_json
from crispseg.inference.inputs import Input, identity
from crispseg.locks import hold

NAME = "predictions.json"
CLASSES = "classes.json"
PATIENCE = 60.0
"""Seconds to wait for other processes to record theirs; of 100 000 pictures that takes one."""
Entry = dict[str, str | None]
"""``by``: the source that wrote the file; ``of``: the picture, None if it is not known or the file is of none."""


def mask(picture: Input) -> str:
    """The name of a picture's mask."""
    return f"{picture.name}.png"


def overlay(picture: Input) -> str:
    """The name of a picture's overlay."""
    return f"overlays/{picture.name}.jpg"


def raster(picture: Input) -> str:
    """The name of a large TIFF's mask, which has its georeference."""
    return f"{picture.name}.tif"


def store(picture: Input) -> str:
    """The name of the mask of a picture in Zarr, a folder."""
    return f"{picture.name}.zarr"


def not_ours(pictures: Sequence[Input], out: Path) -> list[Input]:
    """Return the pictures without those that a prediction wrote to ``out``, which may lie among the inputs.

    Raises ``UsageError`` if none is left, or if the record of ``out`` is none.
    """
    ours = {identity(out / name) for name in read(out / NAME)} if out.is_dir() else set()
    left = [picture for picture in pictures if picture.url is not None or identity(picture.path) not in ours]
    if pictures and not left:
        raise UsageError(f"every input is a mask or overlay that was written to {out}; give the pictures")
    return left


def claim(out: Path, files: Mapping[str, Input], classes: ClassSet, source: str, *, overwrite: bool) -> None:
    """Record the ``files`` that will be written to ``out``, each of its picture, and write its ``classes.json``.

    The record is written before any of it, so that a kill leaves it; what killed writers left behind is removed. It is
    read and written by one process at a time, so that several may predict into one folder and none loses an entry.
    Raises ``UsageError`` if something that may not be replaced is there: see
    :func:`crispseg.inference.predict_files`.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder to write to, found a file")
    with hold(out, patience=PATIENCE):
        _claim(out, files, classes, source, overwrite)


def _claim(out: Path, files: Mapping[str, Input], classes: ClassSet, source: str, overwrite: bool) -> None:
    pictures = [picture for picture in files.values() if picture.url is None]
    new: dict[str, Entry] = {name: {"by": source, "of": picture.place()} for name, picture in files.items()}
    before = read(out / NAME)
    originals = {identity(picture.path): picture.path for picture in pictures}
    originals |= {Path(os.path.realpath(picture.path)): picture.path for picture in pictures}
    for name, entry in new.items():
        target = out / name
        if {identity(target), Path(os.path.realpath(target))} & originals.keys():
            raise UsageError(f"{target} is itself an input, and would be replaced by its mask; choose another --out")
        if os.path.lexists(target):
            check(target, target.parent, before.get(name), entry, before, overwrite)
    own_classes = CLASSES in before or not os.path.lexists(out / CLASSES)
    if own_classes:
        new[CLASSES] = {"by": source, "of": None}
    _check_classes(out / CLASSES, classes, own_classes, before, source, overwrite)
    for folder in {(out / name).parent for name in new}:
        sweep(folder)
    write_json(out / NAME, {"files": dict(sorted((before | new).items()))})
    if own_classes:
        write_classes(out / CLASSES, classes)


def read(path: Path) -> dict[str, Entry]:
    """Read a record: the files and their entries; empty if there is none. UsageError if it is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a record of predictions ({in_a_line(error)}); choose another --out") from error
    return decode(text, path)


def decode(text: str, name: object) -> dict[str, Entry]:
    """Return the entries of a record. UsageError, naming it by ``name``, if it is something else."""
    try:
        content = json.loads(text)
        if "masks" in content:  # of a version that kept the masks' names alone
            stems = [str(stem) for stem in content["masks"]]
            files = [CLASSES, *(f"{stem}.png" for stem in stems), *(f"overlays/{stem}.jpg" for stem in stems)]
            return {file: {"by": str(content["source"]), "of": None} for file in files}
        return {
            str(file): {"by": str(entry["by"]), "of": None if entry["of"] is None else str(entry["of"])}
            for file, entry in content["files"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{name}: not a record of predictions ({in_a_line(error)}); choose another --out") from error


def check(
    target: object, folder: object, old: Entry | None, new: Entry, record: dict[str, Entry], overwrite: bool
) -> None:
    """Raise UsageError if ``target``, which is in ``folder`` already, may not be replaced."""
    if old is None:
        others = sorted({str(entry["by"]) for entry in record.values()})
        by = f"; {folder} holds masks, but not this one, by {', '.join(others)}" if others else ""
        raise UsageError(f"{target} is there already, and no prediction wrote it{by}; choose another --out")
    if overwrite:
        return
    if old["by"] != new["by"]:
        raise UsageError(
            f"{target} is there already, and not by {new['by']}; {NAME} says that {old['by']} wrote masks there; "
            "choose another --out, or --overwrite"
        )
    if old["of"] not in (None, new["of"]):
        raise UsageError(
            f"{target} is of {old['of']}, and would be replaced by that of {new['of']}; predict both in one command, "
            "which tells their names apart, or choose another --out, or --overwrite"
        )


def _check_classes(
    path: Path, classes: ClassSet, own: bool, record: dict[str, Entry], source: str, overwrite: bool
) -> None:
    """A ``classes.json`` that says the same may stay; one that says something else is the meaning of other masks."""
    if not os.path.lexists(path):
        return
    try:
        if read_classes(path) == classes:
            return
    except DataError:
        pass
    if not own or not (overwrite or record[CLASSES]["by"] == source):
        raise UsageError(
            f"{path} is there already, with other classes than the run's, so masks there would be read wrongly; "
            f"choose another --out{', or --overwrite' if own else ''}"
        )
