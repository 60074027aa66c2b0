"""``predict_large``: a picture of any size through a network, by windows, in constant memory.

Not here: how windows become one (``spans``), reading by windows (``pictures``, ``rasters``), finished rows on the disk
(``rows``), files and folders (``masks``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from crispseg.inference.logits import Model, Size, predict_logits
from crispseg.inference.receptive import receptive_field
from crispseg.inference.spans import Span, blend, spans

ALIGN = 32
"""Windows start at multiples of it, px: where the coarsest maps of usual encoders have their cells, so that every
window divides the picture into the same cells."""
WINDOW = (1024, 1024)
"""(height, width) of the windows, in pixels, if nothing else is asked for."""
Place = tuple[Span, Span]
Track = Callable[[Sequence[Place]], Iterable[Place]]


class Source(Protocol):
    """A picture that is read by windows."""

    height: int
    width: int

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return RGB in [0, 1], float32 (3, h, w)."""

    def void(self, rows: slice, columns: slice) -> Tensor | None:
        """Return where the picture says nothing, bool (h, w); None if it is whole there."""


class Sink(Protocol):
    """Where labels go: rows come from top to bottom, each once."""

    done: int
    """Rows that are there already; the prediction goes on below them."""

    def write(self, labels: Tensor) -> None:
        """Take the next rows, uint8 (n, width)."""


@torch.no_grad()
def predict_large(
    model: Model,
    source: Source,
    sink: Sink,
    *,
    window: Size = WINDOW,
    overlap: int | None = None,
    batch: int = 1,
    void: int = 255,
    device: str | torch.device = "cpu",
    until: int | None = None,
    track: Track = iter,
    **options: Any,
) -> None:
    """Predict ``source`` by windows, and write the classes to ``sink`` as rows complete.

    Logits are held of one window, and of the rows that count in two rows of windows: classes × overlap / 2 × width × 4
    bytes, whatever the height. A prediction that goes on below ``sink.done`` rows writes the very same labels.

    Parameters
    ----------
    model
        Logits (B, K, h, w) of images (B, 3, h, w), in eval mode, on ``device``.
    source, sink
        A picture that is read by windows, and where its labels go.
    window
        (height, width) of a window in px, rounded up to multiples of 32. The last window of a row is cut at the
        picture's edge.
    overlap
        What neighbouring windows share, in px, rounded up to a multiple of 32; its outer quarters weigh nothing, see
        ``spans``. None: as far as the model looks, see :func:`overlap_for`.
    batch
        Windows that the model sees at once.
    void
        The label where the picture says nothing.
    until
        Leave off before this row; None: at the end. What is written is the same as of the whole picture.
    track
        Wraps the windows as they are worked through, for progress.
    options
        ``scales`` and ``flip`` of :func:`crispseg.inference.predict_logits`, applied to each window.

    Raises
    ------
    ValueError
        The overlap is no less than the window, or the model does not answer at its input's size.
    """
    window, overlap = placed(model, window, overlap, device)
    end = source.height if until is None else min(until, source.height)
    if sink.done >= end:
        return
    rows = [row for row in grid(source.height, window[0], overlap) if row.counted().stop > sink.done]
    rows = [row for row in rows if row.counted().start < end]
    columns = grid(source.width, window[1], overlap)
    answers = _answers(model, source, [(r, c) for r in rows for c in columns], batch, device, track, options)
    band = torch.empty(0, source.width, dtype=torch.uint8)
    for down, across, logits in blend(answers, rows, columns):
        if across.start == 0:
            band = torch.empty(down.stop - down.start, source.width, dtype=torch.uint8)
        labels = logits.argmax(0).to("cpu", torch.uint8)
        silent = source.void(down, across)
        band[:, across] = labels if silent is None else labels.masked_fill(silent, void)
        if across.stop == source.width and down.stop > sink.done:
            sink.write(band[max(0, sink.done - down.start) : end - down.start])


def placed(
    model: Model, window: Size = WINDOW, overlap: int | None = None, device: str | torch.device = "cpu"
) -> tuple[Size, int]:
    """Return windows and overlap as :func:`predict_large` lays them: multiples of 32, and the default if it is None.

    Raises ``ValueError`` if the overlap is no less than the window.
    """
    window = (aligned(window[0]), aligned(window[1]))
    overlap = default_overlap(model, window, device) if overlap is None else aligned(overlap)
    if not 0 <= overlap < min(window):
        raise ValueError(f"the overlap must be smaller than the window, {window[0]}×{window[1]} px, found {overlap}")
    return window, overlap


def grid(length: int, window: int, overlap: int) -> list[Span]:
    """Return the windows along one side of a picture, as :func:`predict_large` lays them."""
    return spans(length, window, window - overlap, ALIGN, even=True)


def aligned(pixels: int) -> int:
    """Return the next multiple of 32.

    >>> aligned(0), aligned(1), aligned(32)
    (0, 32, 32)
    """
    return -(-pixels // ALIGN) * ALIGN


def default_overlap(model: Model, window: Size = WINDOW, device: str | torch.device = "cpu") -> int:
    """Return the overlap that follows from how far the model looks, see :func:`overlap_for`."""
    side = min(512, *window)
    return overlap_for(receptive_field(model, size=(side, side), device=device).effective, window)


def overlap_for(effective: int, window: Size = WINDOW) -> int:
    """Return the overlap for a model of this effective radius, px: a multiple of 32, at least 32.

    Four times the radius, so that what weighs anything saw all it looks at, while that is at most half a window. For a
    model that looks further it is half a window, or twice the radius, so that what weighs most saw it all, up to three
    quarters of a window: each step further costs as many windows again. A network that looks at everything has no
    radius, and no overlap makes its windows one picture.

    >>> overlap_for(9), overlap_for(227), overlap_for(227, (512, 512))
    (64, 512, 384)
    """
    half, most = min(window) // 2 // ALIGN * ALIGN, min(window) * 3 // 4 // ALIGN * ALIGN
    return max(ALIGN, min(aligned(4 * effective), max(half, min(aligned(2 * effective), most))))


def _answers(
    model: Model,
    source: Source,
    places: Sequence[Place],
    batch: int,
    device: str | torch.device,
    track: Track,
    options: dict[str, Any],
) -> Iterator[Tensor]:
    """Yield the logits (K, h, w) of windows; those of one size, one after the other, share batches."""
    for _, alike in groupby(track(places), key=lambda place: [len(side.weights) for side in place]):
        while part := [place for _, place in zip(range(batch), alike)]:
            x = torch.stack([source.read(rows.cut(), columns.cut()) for rows, columns in part])
            yield from predict_logits(model, x.to(device), **options)
