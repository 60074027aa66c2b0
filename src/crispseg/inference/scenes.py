"""``predict_scenes``: a mask for every large picture, in constant memory; a killed prediction resumes.

Beside ``predict_files``, for pictures that fit the memory whole. Not here: windows (``large``), formats (``pictures``,
``rasters``, ``rows``).
"""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crispseg.data import ClassSet
from crispseg.errors import DataError, UsageError, is_memory
from crispseg.inference import record
from crispseg.inference.inputs import Input, expand
from crispseg.inference.large import WINDOW, Place, Source, aligned, default_overlap, predict_large
from crispseg.inference.logits import Size
from crispseg.inference.masks import Outcome
from crispseg.inference.pictures import is_raster, open_source
from crispseg.inference.rasters import Raster, need_rasterio, save_geotiff
from crispseg.inference.rows import SUFFIX, RowFile, save_png


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
    """Write a mask for each picture of any size: ``out/NAME.tif`` of a TIFF, with its georeference; else ``NAME.png``.

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
    pictures = expand(inputs)
    if any(is_raster(picture.path) for picture in pictures):
        need_rasterio()
    model = model.to(device).eval()
    window = (aligned(seen.window[0]), aligned(seen.window[1]))
    overlap = default_overlap(model, window, device) if seen.overlap is None else aligned(seen.overlap)
    if overlap >= min(window):
        raise UsageError(f"--overlap {seen.overlap} must be below the window, {window[0]}×{window[1]} px")
    seen = replace(seen, window=window, overlap=overlap)
    names = {_name(picture): picture for picture in pictures}
    record.claim(out, names, classes, source, overwrite=overwrite)
    of = {"seen": asdict(seen), "options": {**options}, "weights": _digest(model), "classes": classes.names}
    outcome = Outcome([], [])
    for name, picture in names.items():
        try:
            scene = open_source(picture.path, seen.bands, seen.limits)
            rows = _rows(out / name, scene, picture.path, of, overwrite)
            try:
                predict_large(
                    model,
                    scene,
                    rows,
                    window=window,
                    overlap=overlap,
                    batch=seen.batch,
                    void=classes.ignore_index,
                    device=device,
                    track=partial(track, what=f"predicting {picture.name}"),
                    **options,
                )
                _save(out / name, scene, rows, classes)
            except DataError as error:
                raise DataError(f"{error}; {rows.done} of {rows.height} rows are finished, in {rows.path}") from error
            finally:
                rows.close()
            rows.path.unlink()
            outcome.written.append(out / name)
        except DataError as error:
            outcome.failed.append(error)
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            size = f"{window[0]}×{window[1]} px"
            outcome.failed.append(DataError(f"{picture.path}: a --window of {size} is too large for {device}"))
    return outcome


def _name(picture: Input) -> str:
    return record.raster(picture) if is_raster(picture.path) else record.mask(picture)


def _rows(target: Path, scene: Source, path: Path, of: dict[str, Any], overwrite: bool) -> RowFile:
    """The finished rows of a picture; DataError if the disk has no room for the rest of them and for the mask."""
    there = path.stat()
    key = {"picture": str(path.resolve()), "bytes": there.st_size, "changed": there.st_mtime_ns, **of}
    rows = RowFile(target.with_name(target.name + SUFFIX), scene.height, scene.width, key, replace=overwrite)
    need = (2 * scene.height - rows.done) * scene.width  # the mask compresses well, and need not
    free = shutil.disk_usage(target.parent).free
    if free < need:
        rows.close()
        raise DataError(f"{target}: expected room for {_said(need)} on this disk, found {_said(free)}")
    return rows


def _save(target: Path, scene: Source, rows: RowFile, classes: ClassSet) -> None:
    if isinstance(scene, Raster):
        save_geotiff(target, rows.rows(), rows.height, rows.width, classes, scene.facts())
    else:
        save_png(target, rows.rows(), rows.height, rows.width, classes)


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
