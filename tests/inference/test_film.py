"""Films: exact class indices in a lossless film or PNGs, sound on overlays, and what was finished of bad ones."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from crispseg.data import ClassSet, read_label
from crispseg.errors import DataError, UsageError
from crispseg.inference import predict_film

av = pytest.importorskip("av")
CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class Strongest(nn.Module):
    """Its logits are the image's channels: the class of a pixel is its strongest colour."""

    def forward(self, x):
        return x


def classes_of(i, height=48, width=64):
    """Blocks of 16 px that move by a class a frame."""
    return ((np.arange(height) // 16)[:, None] + np.arange(width) // 16 + i) % 3


def film(path, frames=30, *, sound=False, codec="libx264", height=48, width=64, rate=10):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p" if codec == "libx264" else "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for i in range(frames):
            pixels = np.eye(3, dtype=np.uint8)[classes_of(i, height, width)] * 200 + 20
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if audio is not None:
                tone = (np.sin(np.arange(800) / 5)[None] * 9000).astype(np.int16)
                heard = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 8000, 800 * i, Fraction(1, 8000)
                container.mux(audio.encode(heard))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def predict(path, out, **options):
    return predict_film(Strongest(), CLASSES, path, out, **options)


def frames_of(path, form):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(float(frame.time), frame.to_ndarray(format=form)) for frame in container.decode(stream)]


def test_a_matroska_film_holds_the_class_indices(tmp_path):
    done = predict(film(tmp_path / "a.mp4"), tmp_path / "masks.mkv")
    assert (done.frames, done.failed) == (30, None)
    found = frames_of(tmp_path / "masks.mkv", "gray")
    assert len(found) == 30
    for i, (time, label) in enumerate(found):
        assert time == pytest.approx(i / 10, abs=0.002)
        assert (label == classes_of(i)).all()


def test_a_folder_gets_a_png_a_frame(tmp_path):
    assert predict(film(tmp_path / "a.mp4", 12), tmp_path / "masks").frames == 12
    for i in range(12):
        assert (read_label(tmp_path / "masks" / f"{i + 1:06d}.png", CLASSES).numpy() == classes_of(i)).all()
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12


def test_a_film_to_look_at_shows_the_colours_and_its_odd_sides_are_evened(tmp_path):
    predict(film(tmp_path / "a.mp4", 8, height=47, width=61), tmp_path / "masks.mp4")
    found = frames_of(tmp_path / "masks.mp4", "rgb24")
    assert len(found) == 8 and found[0][1].shape == (48, 62, 3)
    assert np.abs(found[3][1][8, 8].astype(int) - CLASSES.palette[classes_of(3)[8, 8]]).max() < 12


def test_an_overlay_keeps_picture_and_sound(tmp_path):
    predict(film(tmp_path / "a.mp4", sound=True), tmp_path / "seen.mp4", overlay=True)
    with av.open(str(tmp_path / "a.mp4")) as before, av.open(str(tmp_path / "seen.mp4")) as after:
        packets = [[bytes(p) for p in c.demux(c.streams.audio[0]) if p.size] for c in (before, after)]
    assert packets[0] == packets[1] and len(packets[0]) > 20
    found = frames_of(tmp_path / "seen.mp4", "rgb24")
    assert len(found) == 30
    assert np.abs(found[0][1][8, 8].astype(int) - [(220 + 255) / 2, 10, 10]).max() < 12
    predict(tmp_path / "a.mp4", tmp_path / "masks.mp4")
    with av.open(str(tmp_path / "masks.mp4")) as plain:
        assert not plain.streams.audio


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_a_film_that_is_cut_short_is_named_and_what_was_finished_stays(tmp_path, name):
    path = film(tmp_path / name, 60, codec="mpeg4" if name == "a.mkv" else "mpeg2video", rate=25)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = predict(path, tmp_path / "masks.mkv")
    if name == "a.ts":  # a stream: it says no length, so nobody can miss the rest
        assert done.failed is None
    else:
        assert str(done.failed).startswith(f"{path}: cut short: expected 60 frames, found {done.frames}; the")
    assert 10 < done.frames < 55
    assert len(frames_of(tmp_path / "masks.mkv", "gray")) == done.frames


def test_a_film_without_its_index_is_named_and_nothing_is_written(tmp_path):
    path = film(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-500])
    for bad, words in ((path, "damaged, cut short or no film"), (tmp_path / "gone.mp4", "no such file")):
        with pytest.raises(DataError, match=f"{bad.name}: {words}"):
            predict(bad, tmp_path / "masks.mkv")
    assert not (tmp_path / "masks.mkv").exists()


def test_a_film_whose_size_changes_is_named_and_the_frames_before_stay(tmp_path):
    how = {"frames": 10, "codec": "mpeg2video", "rate": 25}
    parts = [film(tmp_path / "64.ts", **how, width=64), film(tmp_path / "96.ts", **how, width=96)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    done = predict(path, tmp_path / "masks.mkv")
    assert f"{path}: frame {done.frames + 1} is 96×48 px, expected 64×48 as all before" in str(done.failed)
    assert str(done.failed).endswith(f"the {done.frames} frames before are in {tmp_path / 'masks.mkv'}")
    assert len(frames_of(tmp_path / "masks.mkv", "gray")) == done.frames > 5


def test_misuse_is_refused_before_a_frame_is_read(tmp_path):
    path = film(tmp_path / "a.mp4", 3)
    (tmp_path / "there.mkv").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, options, words in (
        (path, {}, "is the film itself"),
        (tmp_path / "there.mkv", {}, "is there already; choose another --out, or --overwrite"),
        (tmp_path / "full", {}, "is there already"),
        (tmp_path / "a.gif", {}, "expected .mkv, .mp4, .m4v, .mov, or a folder for a PNG a frame"),
        (tmp_path / "new", {"overlay": True}, "--overlay makes a film, so --out must be one"),
    ):
        with pytest.raises(UsageError, match=words):
            predict(path, out, **options)
    assert (tmp_path / "there.mkv").read_text() == "mine"
    assert predict(path, tmp_path / "there.mkv", overwrite=True).frames == 3


def test_every_frame_is_watched_and_one_is_held(tmp_path):
    seen = []
    predict(film(tmp_path / "a.mp4", 5), tmp_path / "m.mkv", watch=lambda image, label: seen.append((image, label)))
    assert [label.tolist() for _, label in seen] == [classes_of(i).tolist() for i in range(5)]
    assert all(image.dtype == torch.uint8 and image.shape == (3, 48, 64) for image, _ in seen)
