"""``predict_film``: a film through a network, frame by frame, in constant memory, through PyAV.

**What is written**, by the name of ``out``:

- ``NAME.mkv``: the class indices themselves, as grey values, lossless (FFV1);
- ``NAME.mp4``, ``.m4v``, ``.mov``: a film to look at, the colours of the classes (H.264);
- either, with ``overlay``: the film with the classes on it, and with its sound;
- a folder: a palette PNG of class indices for every frame, ``000001.png`` and on.

Not here: pictures (``masks``).
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crispseg.data import ClassSet, encode_label, full_palette, write_classes
from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.files import write_bytes, writing
from crispseg.inference.labels import score_map
from crispseg.inference.logits import Size
from crispseg.inference.overlay import overlay as draw_overlay
from crispseg.inference.steady import Steady

LABELS = ".mkv"
"""Of a film that holds class indices."""
_FORMATS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
BAD = "damaged, cut short or no film"
_SLACK = 5
"""Frames that a film may be shorter than it says: editors round."""


@dataclass(frozen=True)
class Film:
    """What became of a film: how many frames are written, and what was wrong with it, if anything."""

    frames: int
    failed: DataError | None


class Track(Protocol):
    """Shows how many of a film's frames are done; ``total`` is what the film says."""

    def __call__(self, frames: Iterable[Any], /, what: str, total: int) -> Iterable[Any]: ...


def _untracked(frames: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    return frames


def predict_film(
    model: nn.Module,
    classes: ClassSet,
    path: str | Path,
    out: str | Path,
    *,
    overlay: bool = False,
    overwrite: bool = False,
    steady: Steady | None = None,
    size: Size | None = None,
    device: str | torch.device = "cpu",
    track: Track = _untracked,
    watch: Callable[[Tensor, Tensor], None] | None = None,
    **options: Any,
) -> Film:
    """Predict every frame of a film; one frame is held at a time, with ``steady`` two.

    Parameters
    ----------
    model, classes, size, device
        As in :func:`crispseg.inference.predict_files`.
    path, out
        The film, and what is written: see above for what the name of ``out`` says. Time stamps are the film's.
    overlay
        Write the film with the classes on it, and its sound.
    overwrite
        Replace what is at ``out``.
    steady
        Averages the scores of neighbouring frames along the flow, so that borders flicker less.
    watch
        Is given the picture uint8 (3, H, W) and labels uint8 (H, W) of each frame, for a metric.
    options
        Of :func:`crispseg.inference.label_map`.

    Returns
    -------
    How many frames are written. A film that is cut short or damaged, or whose frames change their size, is named in
    ``failed``; what was finished stays, as a whole film.

    Raises
    ------
    UsageError
        PyAV is not installed; ``out`` is there, is the film itself, or has a suffix that is no film's.
    DataError
        ``path`` is missing or no film.
    """
    path, out = Path(path), Path(out)
    _check(path, out, overlay, overwrite)
    model = model.to(device).eval()
    done, failed = 0, None
    with _opened(path) as film, ExitStack() as stack:
        write = stack.enter_context(_writer(out, film, classes, overlay))
        frames = track(film.frames(write.sound), f"predicting {path.name}", film.total)
        try:
            for frame, image in frames:
                scores = score_map(model, image, size=size, device=device, name=path, **options)
                scores = scores if steady is None else steady(image, scores)
                label = scores.argmax(0).to("cpu", torch.uint8)
                write(frame, image, label)
                if watch is not None:
                    watch(image, label)
                done += 1
        except DataError as error:
            if not done:
                raise
            failed = DataError(f"{error}; the {done} frames before are in {out}")
    return Film(done, failed)


def _check(path: Path, out: Path, overlay: bool, overwrite: bool) -> None:
    if importlib.util.find_spec("av") is None:
        raise UsageError('films are read by PyAV, which is not installed: pip install "crispseg[film]"')
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if out.suffix and not out.is_dir() and out.suffix.lower() not in _FORMATS:
        raise UsageError(f"--out {out}: expected {', '.join(_FORMATS)}, or a folder for a PNG a frame")
    if overlay and not out.suffix:
        raise UsageError(f"--overlay makes a film, so --out must be one, such as {out}.mp4")
    if out.exists() and out.samefile(path):
        raise UsageError(f"{out} is the film itself; choose another --out")
    if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another --out, or --overwrite")


class _Reader:
    """A film that is open: its frames, upright, one at a time, and its sound."""

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.video = container.streams.best("video") or container.streams.video[0]  # the first may be a cover
        self.audio = container.streams.audio[0] if container.streams.audio else None
        self.video.thread_type = "AUTO"
        rate = self.video.average_rate or Fraction(25)
        self.seconds = self.video.duration * self.video.time_base if self.video.duration else _said(self.video)
        self.rate = rate
        self.total = self.video.frames or round(self.seconds * rate)

    def frames(self, sound: Callable[[Any], None] | None) -> Iterator[tuple[Any, Tensor]]:
        """Yield each frame with its picture uint8 (3, H, W); packets of sound go to ``sound`` as they come."""
        first: tuple[int, int] | None = None
        count, end = 0, Fraction(0)
        streams = [self.video] if sound is None or self.audio is None else [self.video, self.audio]
        with _named(lambda: f"{self.path}: {BAD}: after frame {count}"):
            for packet in self.container.demux(*streams):
                if packet.stream is not self.video:
                    if sound is not None and packet.dts is not None:
                        sound(packet)
                    continue
                for frame in packet.decode():
                    found = (frame.width, frame.height)
                    first = first or found
                    if found != first:
                        was, now = (f"{width}×{height}" for width, height in (first, found))
                        raise DataError(f"{self.path}: frame {count + 1} is {now} px, expected {was} as all before")
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    yield frame, torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
                    count += 1
                    if frame.pts is not None and frame.time_base is not None:
                        end = max(end, (frame.pts + frame.duration) * frame.time_base)
        if not count:
            raise DataError(f"{self.path}: expected a film, found no frame")
        missing = self.total - count > max(_SLACK, self.total // 50)
        # a film of variable rate has other numbers than its rate says, and a trimmed one hides frames that it counts
        if missing and end < self.seconds - max(_SLACK / self.rate, self.seconds / 50):
            raise DataError(f"{self.path}: cut short: expected {self.total} frames, found {count}")


def _said(stream: Any) -> Fraction:
    """The seconds that a Matroska file names in words, 0 if none."""
    words = str(stream.metadata.get("DURATION", "0")).split(":")
    try:
        return sum((Fraction(word) * 60**i for i, word in enumerate(reversed(words))), Fraction(0))
    except ValueError:
        return Fraction(0)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    with _named(lambda: f"{path}: {BAD}: it cannot be opened"):
        container = _av().open(str(path), options={"protocol_whitelist": "file"})
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: expected a film, found no pictures in it")
        yield _Reader(path, container)


@contextmanager
def _named(where: Callable[[], str]) -> Iterator[None]:
    """Errors of FFmpeg as a DataError that begins with ``where``."""
    try:
        yield
    except _av().error.FFmpegError as error:
        raise DataError(f"{where()}: {in_a_line(error)}") from error


def _av() -> Any:
    return importlib.import_module("av")


class _Writer:
    """Takes a frame, its picture and its labels; ``sound`` takes packets, where sound is kept."""

    def __init__(self, put: Callable[[Any, Tensor, Tensor], None], sound: Callable[[Any], None] | None = None) -> None:
        self.put, self.sound = put, sound

    def __call__(self, frame: Any, image: Tensor, label: Tensor) -> None:
        self.put(frame, image, label)


@contextmanager
def _writer(out: Path, film: _Reader, classes: ClassSet, overlay: bool) -> Iterator[_Writer]:
    if not out.suffix or out.is_dir():
        count = 0

        def put(frame: Any, image: Tensor, label: Tensor) -> None:
            nonlocal count
            if not count:  # a film without frames leaves nothing
                out.mkdir(parents=True, exist_ok=True)
                write_classes(out / "classes.json", classes)
            count += 1
            write_bytes(out / f"{count:06d}.png", encode_label(label, classes))

        yield _Writer(put)
        return
    av = _av()
    colours = np.array(full_palette(classes), np.uint8)
    exact = out.suffix.lower() == LABELS and not overlay

    def drawn(image: Tensor, label: Tensor) -> Any:
        if exact:
            return av.VideoFrame.from_ndarray(label.numpy(), format="gray")
        pixels = draw_overlay(image, label, classes).permute(1, 2, 0).numpy() if overlay else colours[label.numpy()]
        return av.VideoFrame.from_ndarray(_even(pixels), format="rgb24")

    with writing(out) as temporary, av.open(str(temporary), "w", format=_FORMATS[out.suffix.lower()]) as container:
        stream = container.add_stream("ffv1" if exact else "libx264", rate=film.rate)
        stream.codec_context.time_base = film.video.time_base
        audio = container.add_stream_from_template(film.audio) if overlay and film.audio is not None else None
        begun = False
        early: list[Any] = []  # sound before the first frame, with whose size the file begins

        def mux(packets: Callable[[], Any]) -> None:
            with _named(lambda: f"{out}: cannot be written; .mkv takes the sound of any film"):
                container.mux(packets())

        def show(frame: Any, image: Tensor, label: Tensor) -> None:
            nonlocal begun
            new = drawn(image, label)
            if not begun:
                stream.width, stream.height = new.width, new.height
                stream.pix_fmt = "gray" if exact else "yuv420p"
                begun = True
                for packet in early:
                    hear(packet)
            new.pts, new.time_base = frame.pts, frame.time_base
            mux(lambda: stream.encode(new))

        def hear(packet: Any) -> None:
            if not begun:
                early.append(packet)
                return
            packet.stream = audio
            mux(lambda: packet)

        yield _Writer(show, None if audio is None else hear)
        if begun:
            mux(lambda: stream.encode(None))


def _even(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour in H.264 is kept for 2×2 px: an odd side gets its last row or column twice."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
