"""``predict_files``: a mask for every picture, and one bad picture stops nothing.

Not here: which pictures are meant (``inputs``) and what the network says of one (``logits``).
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from crispseg.data import ClassSet, encode_label, read_image, write_classes
from crispseg.errors import DataError, UsageError
from crispseg.files import write_bytes, write_json
from crispseg.inference.inputs import Input, expand
from crispseg.inference.logits import Size, predict_logits
from crispseg.inference.overlay import overlay as draw_overlay

RECORD = "predictions.json"
Track = Callable[[Sequence[Input]], Iterable[Input]]


@dataclass(frozen=True)
class Outcome:
    """What became of a prediction: the masks written, and for each picture that could not be read, what was wrong."""

    written: list[Path]
    failed: list[DataError]


def predict_files(
    model: nn.Module,
    classes: ClassSet,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    source: str,
    overlay: bool = False,
    size: Size | None = None,
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    track: Track = iter,
    **options: Any,
) -> Outcome:
    """Write ``out/NAME.png``, a palette PNG of class indices at the picture's size, for every picture in ``inputs``.

    Parameters
    ----------
    model, classes
        As ``load_run`` gives them; the model is moved to ``device`` and set to eval mode.
    inputs
        Files, folders and glob patterns; see :func:`crispseg.inference.expand` for the names.
    source
        Who predicts, e.g. the run folder. It is kept in ``out/predictions.json``; masks there are replaced by the same
        source only, unless ``overwrite``.
    overlay
        Also write ``out/overlays/NAME.jpg``: the picture with the classes on it.
    size
        (height, width) of the pictures that the model was trained on, if these were resized: a picture is brought to as
        many pixels, in its own proportions, before the model sees it. None: pictures are seen as they are.
    track
        Wraps the pictures as they are worked through, for a progress bar.
    options
        ``window``, ``stride``, ``scales`` and ``flip`` of :func:`predict_logits`.

    A picture that cannot be read, or is too large for the device's memory, is left out and told of in the outcome.
    Raises ``UsageError``, before anything is written, if a mask would replace an input or a file that ``source`` did
    not write.
    """
    out = Path(out)
    pictures = expand(inputs)
    _check_targets(pictures, out, source, overwrite)
    write_classes(out / "classes.json", classes)
    model = model.to(device).eval()
    outcome = Outcome([], [])
    for picture in track(pictures):
        try:
            image = read_image(picture.path)
            label = _predict(model, image, size, device, options)
        except DataError as error:
            outcome.failed.append(error)
            continue
        except torch.OutOfMemoryError:
            height, width = image.shape[-2:]
            message = f"{picture.path}: {width}×{height} pixels are too many for {device}; use a sliding window"
            outcome.failed.append(DataError(message))
            continue
        target = _mask(out, picture)
        write_bytes(target, encode_label(label, classes))
        outcome.written.append(target)
        if overlay:
            write_bytes(_overlay(out, picture), _jpeg(draw_overlay(image, label, classes)))
    return outcome


def seen_size(own: Size, trained: Size | None) -> Size | None:
    """The size at which a model trained on pictures of one size should see another: as many pixels, own proportions.

    >>> seen_size((360, 480), (180, 240)), seen_size((480, 360), (180, 240)), seen_size((5, 5), None)
    ((180, 240), (240, 180), None)
    """
    if trained is None:
        return None
    factor = math.sqrt(trained[0] * trained[1] / (own[0] * own[1]))
    return max(1, round(own[0] * factor)), max(1, round(own[1] * factor))


def _predict(model: nn.Module, image: Tensor, size: Size | None, device: Any, options: dict[str, Any]) -> Tensor:
    own = (image.shape[-2], image.shape[-1])
    logits = predict_logits(model, (image.to(device) / 255), size=seen_size(own, size), **options)
    return logits.argmax(0).to("cpu", torch.uint8)


def _mask(out: Path, picture: Input) -> Path:
    return out / f"{picture.name}.png"


def _overlay(out: Path, picture: Input) -> Path:
    return out / "overlays" / f"{picture.name}.jpg"


def _jpeg(image: Tensor) -> bytes:
    buffer = BytesIO()
    # Subsampled colour would blur what is shown of the borders.
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _check_targets(pictures: list[Input], out: Path, source: str, overwrite: bool) -> None:
    """Refuse to replace what is not ours; then record what will be written, first, so that a kill leaves the record."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder to write to, found a file")
    targets = {_mask(out, picture) for picture in pictures} | {_overlay(out, picture) for picture in pictures}
    originals = {picture.path.resolve() for picture in pictures}
    for target in sorted(targets):
        if target.resolve() in originals:
            raise UsageError(f"{target} is itself an input, and would be replaced by its mask; choose another --out")
    record = out / RECORD
    before = _read_record(record)
    ours = set(before["masks"]) if before["source"] == source else set()
    new = {picture.name for picture in pictures}
    for picture in pictures:
        target = _mask(out, picture)
        if target.exists() and picture.name not in ours and not overwrite:
            by = f"; {record} says that {before['source']} wrote masks there" if before["source"] else ""
            raise UsageError(
                f"{target} is there already, and not by {source}{by}; choose another --out, or --overwrite"
            )
    write_json(record, {"source": source, "masks": sorted(ours | new)})


def _read_record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"source": str(content["source"]), "masks": [str(name) for name in content["masks"]]}
    except FileNotFoundError:
        return {"source": "", "masks": []}
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a record of predictions ({error}); choose another --out") from error
