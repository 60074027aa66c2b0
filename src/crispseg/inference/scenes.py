"""``predict_scenes``: a mask for every large picture, in constant memory; a killed prediction resumes.

Beside ``predict_files``, for pictures that fit the memory whole. Not here: windows (``large``), formats (``pictures``,
``rasters``, ``rows``).
"""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crispseg.data import ClassSet
from crispseg.errors import DataError, UsageError, is_memory
from crispseg.inference import record
from crispseg.inference.inputs import Input, expand
from crispseg.inference.large import WINDOW, Place, Source, aligned, grid, placed, predict_large
from crispseg.inference.logits import Size
from crispseg.inference.masks import Outcome
from crispseg.inference.pictures import is_raster, open_source
from crispseg.inference.rasters import Raster, need_rasterio, save_geotiff
from crispseg.inference.rows import SUFFIX, RowFile, Rows, save_png
from crispseg.inference.zarrs import Zarr, is_zarr, need_zarr, save_zarr

TOGETHER = 8
"""Rows of windows of a part of a picture: where two parts meet, one is computed twice."""


class Track(Protocol):
    """Shows how many of a picture's windows are done."""

    def __call__(self, places: Sequence[Place], /, what: str) -> Iterable[Place]: ...


def _untracked(places: Sequence[Place], what: str) -> Iterable[Place]:
    return places


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """How large pictures are seen: ``window``, ``overlap`` and ``batch`` of :func:`crispseg.inference.predict_large`,
    ``bands`` and ``limits`` of a TIFF's :class:`crispseg.inference.Raster`."""

    window: Size = WINDOW
    overlap: int | None = None
    batch: int = 1
    bands: tuple[int, ...] | None = None
    limits: tuple[float, float] | None = None


def predict_scenes(
    model: nn.Module,
    classes: ClassSet,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    source: str,
    seen: Scenes = Scenes(),
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    track: Track = _untracked,
    **options: Any,
) -> Outcome:
    """Write a mask for each picture of any size to ``out``: ``NAME.tif`` of a TIFF, with its georeference,
    ``NAME.zarr`` of Zarr, else ``NAME.png``.

    Finished rows lie in ``out/NAME.*.rows`` until the mask is whole. The same call after a kill goes on below them.

    Parameters
    ----------
    model, classes, inputs, out, source, overwrite
        As in :func:`crispseg.inference.predict_files`. ``overwrite`` also drops finished rows of another prediction.
    seen
        Windows, and how a TIFF's values become colours.
    track
        ``track(windows, what)`` wraps the windows of a picture as they are worked through, for progress.
    options
        ``scales`` and ``flip`` of :func:`crispseg.inference.predict_logits`.

    Returns
    -------
    What was written, and what was left out: a picture that is missing, damaged or cut short (what was finished of it
    stays), a TIFF whose bands or limits have to be said, what the disk has no room for, and windows that are too large
    for the device's memory.

    Raises
    ------
    UsageError
        Before anything is written: as ``predict_files``; the overlap is no less than the window; rasterio is needed and
        not there.
    """
    out = Path(out)
    model = model.to(device).eval()
    job = claim_scenes(model, classes, inputs, out, source, seen, overwrite, device, options)
    outcome = Outcome([], [])
    for name, picture in job.names.items():
        one = predict_scene(model, classes, name, picture, out, job, overwrite=overwrite, device=device, track=track)
        outcome.written.extend(one.written)
        outcome.failed.extend(one.failed)
    return outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is predicted, and how: ``names`` of masks with their pictures, ``seen`` with the overlap that is used,
    ``options``, and ``of``: what decides the labels beside the picture."""

    names: dict[str, Input]
    seen: Scenes
    of: dict[str, Any]
    options: dict[str, Any]


def claim_scenes(
    model: nn.Module,
    classes: ClassSet,
    inputs: Sequence[str | Path],
    out: Path,
    source: str,
    seen: Scenes,
    overwrite: bool,
    device: str | torch.device,
    options: dict[str, Any],
) -> Job:
    """Record the masks of large pictures in ``out``, as :func:`predict_scenes` does before it writes any."""
    pictures = record.not_ours(expand(inputs), out)
    if any(is_raster(picture.path) for picture in pictures):
        need_rasterio()
    if any(is_zarr(picture.path) for picture in pictures):
        need_zarr()
    try:
        window, overlap = placed(model, seen.window, seen.overlap, device)
    except ValueError as error:
        size = "×".join(str(aligned(side)) for side in seen.window)
        raise UsageError(f"--overlap {seen.overlap} must be below the window, {size} px") from error
    seen = replace(seen, window=window, overlap=overlap)
    names = {_name(picture): picture for picture in pictures}
    record.claim(out, names, classes, source, overwrite=overwrite)
    of = {"seen": asdict(seen), "options": {**options}, "weights": _digest(model), "classes": classes.names}
    return Job(names=names, seen=seen, of=of, options=options)


def predict_scene(
    model: nn.Module,
    classes: ClassSet,
    name: str,
    picture: Input,
    out: Path,
    job: Job,
    *,
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    track: Track = _untracked,
) -> Outcome:
    """Write the mask of one large picture of a ``job``; of a ``part`` (first row, end) the finished rows alone."""
    outcome, seen = Outcome([], []), job.seen
    try:
        scene = open_source(picture.path, seen.bands, seen.limits)
        rows = _rows(out / name, scene, picture.path, job.of, overwrite, part)
        try:
            predict_large(
                model,
                scene,
                rows if part is None else _Below(rows, part[0]),
                window=seen.window,
                overlap=seen.overlap,
                batch=seen.batch,
                void=classes.ignore_index,
                device=device,
                until=None if part is None else part[1],
                track=partial(track, what=f"predicting {picture.name}"),
                **job.options,
            )
            if part is None:
                _save(out / name, scene, rows.rows(), classes)
        except DataError as error:
            raise DataError(f"{error}; {rows.done} of {rows.height} rows are finished, in {rows.path}") from error
        finally:
            rows.close()
        if part is None:
            rows.path.unlink(missing_ok=True)
            outcome.written.append(out / name)
    except DataError as error:
        outcome.failed.append(error)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        size = f"{seen.window[0]}×{seen.window[1]} px"
        outcome.failed.append(DataError(f"{picture.path}: a --window of {size} is too large for {device}"))
    return outcome


def parts_of(picture: Input, job: Job) -> list[tuple[int, int]]:
    """Return the parts of a large picture that several processes predict: whole rows of windows, :data:`TOGETHER` each.

    A part computes one row of windows of the next one too, as the two blend. Empty if the picture is one part: it is
    small, cannot be read by windows, or cannot be read at all, which is told when it is predicted.
    """
    if not is_raster(picture.path) and not is_zarr(picture.path):
        return []
    try:
        scene = open_source(picture.path, job.seen.bands, job.seen.limits)
    except DataError:
        return []
    assert job.seen.overlap is not None
    ends = [row.counted().stop for row in grid(scene.height, job.seen.window[0], job.seen.overlap)]
    if len(ends) < 2 * TOGETHER:
        return []
    cuts = [0, *ends[TOGETHER - 1 : -TOGETHER : TOGETHER], scene.height]
    return list(pairwise(cuts))


def join_scene(
    classes: ClassSet, name: str, picture: Input, out: Path, job: Job, parts: Sequence[tuple[int, int]]
) -> Path:
    """Write the mask of a large picture whose parts are all finished, and remove their rows."""
    scene = open_source(picture.path, job.seen.bands, job.seen.limits)
    files = [_rows(out / name, scene, picture.path, job.of, False, part) for part in parts]
    try:
        _save(out / name, scene, chain.from_iterable(file.rows() for file in files), classes)
    finally:
        for file in files:
            file.close()
    for file in files:
        file.path.unlink(missing_ok=True)
    return out / name


class _Below:
    """A sink for the rows of a picture below ``top``."""

    def __init__(self, rows: RowFile, top: int) -> None:
        self._rows, self.done = rows, top + rows.done

    def write(self, labels: Tensor) -> None:
        self._rows.write(labels)
        self.done += len(labels)


def _name(picture: Input) -> str:
    return (
        record.raster(picture)
        if is_raster(picture.path)
        else record.store(picture)
        if is_zarr(picture.path)
        else record.mask(picture)
    )


def _rows(
    target: Path, scene: Source, path: Path, of: dict[str, Any], overwrite: bool, part: tuple[int, int] | None = None
) -> RowFile:
    """The finished rows of a picture; DataError if the disk has no room for the rest of them and for the mask."""
    top, end = part or (0, scene.height)
    there = path.stat()
    key = {"picture": str(path.resolve()), "bytes": there.st_size, "changed": there.st_mtime_ns, **of}
    suffix = SUFFIX if part is None else f".{top}-{end}{SUFFIX}"
    key = key if part is None else {**key, "rows": part}
    rows = RowFile(target.with_name(target.name + suffix), end - top, scene.width, key, replace=overwrite)
    need = (2 * (end - top) - rows.done) * scene.width  # the mask compresses well, and need not
    free = shutil.disk_usage(target.parent).free
    if free < need:
        rows.close()
        raise DataError(f"{target}: expected room for {_said(need)} on this disk, found {_said(free)}")
    return rows


def _save(target: Path, scene: Source, rows: Iterable[Rows], classes: ClassSet) -> None:
    if isinstance(scene, Raster):
        save_geotiff(target, rows, scene.height, scene.width, classes, scene.facts())
    elif isinstance(scene, Zarr):
        save_zarr(target, rows, scene.height, scene.width, classes, scene.facts())
    else:
        save_png(target, rows, scene.height, scene.width, classes)


def _said(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def _digest(model: nn.Module) -> str:
    """What tells one network's weights from another's."""
    found = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            found.update(
                name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
    return found.hexdigest()
