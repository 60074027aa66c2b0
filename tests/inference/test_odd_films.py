"""Films as people have them: of variable rate, trimmed, with a cover, cut within a frame, without any frame."""

from fractions import Fraction

import numpy as np
import pytest
from test_film import classes_of, film, frames_of, predict

from crispseg.errors import DataError

av = pytest.importorskip("av")
FAST, SLOW = [i / 30 for i in range(30)], [1 + i / 2 for i in range(20)]


def variable(path, times, *, codec="libx264", base=Fraction(1, 1000)):
    """A film whose frames are shown at ``times``, in seconds: a recording of a screen, say."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.time_base = base
        for i, time in enumerate(times):
            pixels = np.eye(3, dtype=np.uint8)[classes_of(i)] * 200 + 20
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize("out", ["masks.mkv", "masks.mp4"])
def test_a_film_of_variable_rate_is_whole_and_keeps_its_times(tmp_path, name, out):
    times = FAST + SLOW  # its rate, by its first second, promises 300 frames
    done = predict(variable(tmp_path / name, times), tmp_path / out)
    assert (done.frames, done.failed) == (len(times), None)
    found = [time for time, _ in frames_of(tmp_path / out, "gray")]
    assert found == pytest.approx(times, abs=0.002)


def test_a_film_of_variable_rate_that_is_cut_short_is_named(tmp_path):
    path = variable(tmp_path / "a.mkv", FAST + SLOW, codec="ffv1")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    done = predict(path, tmp_path / "masks.mkv")
    assert "cut short" in str(done.failed) and 10 < done.frames < 45


def test_a_film_that_ends_within_a_frame_is_named_and_the_frames_before_stay(tmp_path):
    """With its index in front, as films on the web have it, all frames are promised."""
    film(tmp_path / "end.mp4", 60, codec="mpeg4", rate=25)
    path = tmp_path / "a.mp4"
    with av.open(str(tmp_path / "end.mp4")) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: len(data) * 3 // 4])
    done = predict(path, tmp_path / "masks.mkv")
    assert str(done.failed).startswith(f"{path}: ") and "cut short" in str(done.failed)
    assert 10 < done.frames < 58 and len(frames_of(tmp_path / "masks.mkv", "gray")) == done.frames


@pytest.mark.parametrize("out", ["masks.mkv", "masks"])
def test_a_film_without_a_frame_is_named_and_leaves_nothing(tmp_path, out):
    path = film(tmp_path / "a.mkv", 0)
    with pytest.raises(DataError, match="a.mkv: "):
        predict(path, tmp_path / out)
    assert not (tmp_path / out).exists()


def test_frames_without_times_follow_each_other(tmp_path):
    """AVI says no times of frames."""
    path = film(tmp_path / "a.avi", 20, codec="mpeg4")
    for out in ("masks.mkv", "masks.mp4"):
        assert predict(path, tmp_path / out).failed is None
        times = [time for time, _ in frames_of(tmp_path / out, "gray")]
        assert len(times) == 20 and np.diff(times) == pytest.approx(0.1, abs=0.002)


def test_a_cover_is_not_the_film(tmp_path):
    film(tmp_path / "plain.mp4", 12)
    path = tmp_path / "a.mkv"  # in an .mp4 the cover is read last, wherever it was written
    with av.open(str(tmp_path / "plain.mp4")) as old, av.open(str(path), "w") as new:
        cover = new.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = new.add_stream_from_template(old.streams.video[0])
        new.mux(cover.encode(av.VideoFrame(320, 240, "yuvj420p")))
        new.mux(cover.encode(None))
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    assert predict(path, tmp_path / "masks.mkv").frames == 12
    assert frames_of(tmp_path / "masks.mkv", "gray")[0][1].shape == (48, 64)
