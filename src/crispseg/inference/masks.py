"""``predict_files``: a mask for every picture, and one bad picture stops nothing.

Not here: which pictures are meant (``inputs``), what the network says of one (``logits``, ``labels``),
and which files may be replaced (``record``).
"""

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from crispseg.data import ClassSet, encode_label, read_image
from crispseg.errors import DataError, is_memory
from crispseg.files import write_bytes
from crispseg.inference import record
from crispseg.inference.inputs import Input, expand
from crispseg.inference.labels import label_map
from crispseg.inference.logits import Size
from crispseg.inference.overlay import overlay as draw_overlay

JPEG_SIDE = 65500  # pixels; the format has no more
Track = Callable[[Sequence[Input]], Iterable[Input]]


@dataclass(frozen=True)
class Outcome:
    """What became of a prediction: the masks written (a URL if in an object store), and for each picture that could not
    be read, what was wrong."""

    written: list[Path | str]
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
        Who predicts, e.g. the run folder. It is kept in ``out/predictions.json`` with the picture that each mask is of;
        masks there are replaced by the same source for the same picture only, unless ``overwrite``.
    overlay
        Also write ``out/overlays/NAME.jpg``: the picture with the classes on it.
    size
        (height, width) of the pictures that the model was trained on, if these were resized: a picture is brought to as
        many pixels, in its own proportions, before the model sees it. None: pictures are seen as they are.
    track
        Wraps the pictures as they are worked through, for a progress bar.
    options
        ``refiner`` of :func:`label_map`; ``window``, ``stride``, ``scales`` and ``flip`` of :func:`predict_logits`.

    Returns
    -------
    What was written, and what was left out: a picture that cannot be read or refined, is too large for the device's
    memory, or has too long a name.

    Raises
    ------
    UsageError
        Before anything is written: a mask would replace an input, a file that no prediction wrote (whatever
        ``overwrite`` says), or one that ``source`` did not write for this picture.
    """
    out = Path(out)
    pictures = record.not_ours(expand(inputs), out)
    files = {record.mask(picture): picture for picture in pictures}
    files |= {record.overlay(picture): picture for picture in pictures if overlay}
    record.claim(out, files, classes, source, overwrite=overwrite)
    model = model.to(device).eval()
    outcome = Outcome([], [])
    for picture in track(pictures):
        one = predict_one(model, classes, picture, out, overlay=overlay, size=size, device=device, **options)
        outcome.written.extend(one.written)
        outcome.failed.extend(one.failed)
    return outcome


def predict_one(
    model: nn.Module,
    classes: ClassSet,
    picture: Input,
    out: Path,
    *,
    overlay: bool = False,
    size: Size | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> Outcome:
    """Write the mask of one picture, as :func:`predict_files` does, which recorded it before."""
    outcome = Outcome([], [])
    try:
        image = read_image(picture.path)
        label = label_map(model, image, size=size, device=device, name=picture.path, **options)
        target = out / record.mask(picture)
        write_bytes(target, encode_label(label, classes))
        outcome.written.append(target)
        if overlay:
            write_bytes(out / record.overlay(picture), _overlay(picture, image, label, classes))
    except DataError as error:
        outcome.failed.append(error)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        height, width = image.shape[-2:]
        message = f"{picture.path}: {width}×{height} pixels are too many for {device}; use a sliding window"
        outcome.failed.append(DataError(message))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        outcome.failed.append(DataError(f"{picture.path}: its name is too long for a mask's; rename the picture"))
    return outcome


def _overlay(picture: Input, image: Tensor, label: Tensor, classes: ClassSet) -> bytes:
    height, width = image.shape[-2:]
    if max(height, width) > JPEG_SIDE:
        raise DataError(
            f"{picture.path}: its mask is written, but {width}×{height} pixels are too many for an overlay, a JPEG "
            f"of at most {JPEG_SIDE} on a side"
        )
    drawn = draw_overlay(image, label, classes).permute(1, 2, 0).contiguous().numpy()
    buffer = BytesIO()
    # Subsampled colour would blur what is shown of the borders.
    Image.fromarray(drawn).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
